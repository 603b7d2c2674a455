// Made by config/setup/builtins.ts from the folders of plugins/. A test compares them.
import { type PluginDefinition } from '@engine/core/plugin';
import cgroupSystemd from '../plugins/cgroup-systemd/package.json' with { type: 'json' };
import cgroupV1 from '../plugins/cgroup-v1/package.json' with { type: 'json' };
import cgroupV2 from '../plugins/cgroup-v2/package.json' with { type: 'json' };
import checkpointCriu from '../plugins/checkpoint-criu/package.json' with { type: 'json' };
import dnsLocal from '../plugins/dns-local/package.json' with { type: 'json' };
import firewallIptables from '../plugins/firewall-iptables/package.json' with { type: 'json' };
import firewallNftables from '../plugins/firewall-nftables/package.json' with { type: 'json' };
import firewallNone from '../plugins/firewall-none/package.json' with { type: 'json' };
import frontendCli from '../plugins/frontend-cli/package.json' with { type: 'json' };
import frontendOci from '../plugins/frontend-oci/package.json' with { type: 'json' };
import imageHost from '../plugins/image-host/package.json' with { type: 'json' };
import imageOci from '../plugins/image-oci/package.json' with { type: 'json' };
import ipamLocal from '../plugins/ipam-local/package.json' with { type: 'json' };
import linuxBase from '../plugins/linux-base/package.json' with { type: 'json' };
import logCri from '../plugins/log-cri/package.json' with { type: 'json' };
import logNone from '../plugins/log-none/package.json' with { type: 'json' };
import networkBridge from '../plugins/network-bridge/package.json' with { type: 'json' };
import networkContainer from '../plugins/network-container/package.json' with { type: 'json' };
import networkHost from '../plugins/network-host/package.json' with { type: 'json' };
import networkNone from '../plugins/network-none/package.json' with { type: 'json' };
import restartPolicy from '../plugins/restart-policy/package.json' with { type: 'json' };
import securityApparmor from '../plugins/security-apparmor/package.json' with { type: 'json' };
import securityCapabilities from '../plugins/security-capabilities/package.json' with { type: 'json' };
import securitySeccomp from '../plugins/security-seccomp/package.json' with { type: 'json' };
import specDocker from '../plugins/spec-docker/package.json' with { type: 'json' };
import storageBtrfs from '../plugins/storage-btrfs/package.json' with { type: 'json' };
import storageOverlay from '../plugins/storage-overlay/package.json' with { type: 'json' };
import storageVfs from '../plugins/storage-vfs/package.json' with { type: 'json' };
import volumeLocal from '../plugins/volume-local/package.json' with { type: 'json' };

/** A plugin that comes with the engine: its package.json, and how its code is loaded when it is needed. */
export interface Builtin {
  readonly packageJson: { readonly [key: string]: unknown };
  readonly load: () => Promise<{ readonly default: PluginDefinition<never> }>;
}

export const builtins: readonly Builtin[] = [
  { packageJson: cgroupSystemd, load: () => import('../plugins/cgroup-systemd/plugin.ts') },
  { packageJson: cgroupV1, load: () => import('../plugins/cgroup-v1/plugin.ts') },
  { packageJson: cgroupV2, load: () => import('../plugins/cgroup-v2/plugin.ts') },
  { packageJson: checkpointCriu, load: () => import('../plugins/checkpoint-criu/plugin.ts') },
  { packageJson: dnsLocal, load: () => import('../plugins/dns-local/plugin.ts') },
  { packageJson: firewallIptables, load: () => import('../plugins/firewall-iptables/plugin.ts') },
  { packageJson: firewallNftables, load: () => import('../plugins/firewall-nftables/plugin.ts') },
  { packageJson: firewallNone, load: () => import('../plugins/firewall-none/plugin.ts') },
  { packageJson: frontendCli, load: () => import('../plugins/frontend-cli/plugin.ts') },
  { packageJson: frontendOci, load: () => import('../plugins/frontend-oci/plugin.ts') },
  { packageJson: imageHost, load: () => import('../plugins/image-host/plugin.ts') },
  { packageJson: imageOci, load: () => import('../plugins/image-oci/plugin.ts') },
  { packageJson: ipamLocal, load: () => import('../plugins/ipam-local/plugin.ts') },
  { packageJson: linuxBase, load: () => import('../plugins/linux-base/plugin.ts') },
  { packageJson: logCri, load: () => import('../plugins/log-cri/plugin.ts') },
  { packageJson: logNone, load: () => import('../plugins/log-none/plugin.ts') },
  { packageJson: networkBridge, load: () => import('../plugins/network-bridge/plugin.ts') },
  { packageJson: networkContainer, load: () => import('../plugins/network-container/plugin.ts') },
  { packageJson: networkHost, load: () => import('../plugins/network-host/plugin.ts') },
  { packageJson: networkNone, load: () => import('../plugins/network-none/plugin.ts') },
  { packageJson: restartPolicy, load: () => import('../plugins/restart-policy/plugin.ts') },
  { packageJson: securityApparmor, load: () => import('../plugins/security-apparmor/plugin.ts') },
  { packageJson: securityCapabilities, load: () => import('../plugins/security-capabilities/plugin.ts') },
  { packageJson: securitySeccomp, load: () => import('../plugins/security-seccomp/plugin.ts') },
  { packageJson: specDocker, load: () => import('../plugins/spec-docker/plugin.ts') },
  { packageJson: storageBtrfs, load: () => import('../plugins/storage-btrfs/plugin.ts') },
  { packageJson: storageOverlay, load: () => import('../plugins/storage-overlay/plugin.ts') },
  { packageJson: storageVfs, load: () => import('../plugins/storage-vfs/plugin.ts') },
  { packageJson: volumeLocal, load: () => import('../plugins/volume-local/plugin.ts') },
];
