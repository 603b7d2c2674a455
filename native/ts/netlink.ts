/** Netlink messages: the codec, and builders for links, addresses and routes. nftables: see nfnetlink.ts. */
export * from './netlink-codec.ts';
export * from './netlink-route.ts';
export { addressBytes } from './addresses.ts';
