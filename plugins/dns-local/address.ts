import { BlockList, isIP } from 'node:net';
import { addressBytes } from '@engine/core/contracts/common';

/** One text for each address, whatever the spelling; undefined: it is none. */
export function addressKey(text: string): string | undefined {
  const plain = text.replace(/%.*$/, '');
  const family = isIP(plain);
  if (family === 4) return plain;
  if (family !== 6) return undefined;
  const bytes = addressBytes(plain);
  const groups = Array.from({ length: 8 }, (_, i) => bytes.readUInt16BE(2 * i));
  // an IPv4 client of an IPv6 socket
  if (groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff) {
    const [high = 0, low = 0] = groups.slice(6);
    return [high >> 8, high & 255, low >> 8, low & 255].join('.');
  }
  return groups.map((group) => group.toString(16)).join(':');
}

/** Key of the address that a name of in-addr.arpa or ip6.arpa stands for; undefined: it is no such name, or not a whole address. */
export function reverseAddress(name: string): string | undefined {
  const four = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.in-addr\.arpa$/.exec(name);
  if (four) return addressKey(four.slice(1).reverse().join('.'));
  if (!/^([0-9a-f]\.){32}ip6\.arpa$/.test(name)) return undefined;
  const digits = name.slice(0, 63).split('.').reverse().join('');
  return addressKey((digits.match(/.{4}/g) ?? []).join(':'));
}

/** Is an address (its key will do) in one of these CIDRs? What is no CIDR is left out. */
export function subnetTest(subnets: readonly string[]): (address: string) => boolean {
  const list = new BlockList();
  for (const subnet of subnets) {
    const [address = '', prefix = ''] = subnet.split('/');
    try {
      list.addSubnet(address, Number(prefix), isIP(address) === 6 ? 'ipv6' : 'ipv4');
    } catch {
      // not a subnet
    }
  }
  return (address) => {
    const family = isIP(address);
    return family !== 0 && list.check(address, family === 6 ? 'ipv6' : 'ipv4');
  };
}
