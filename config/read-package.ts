import { type PluginManifest } from '@engine/core/plugin';

/** A plugin's package, as far as its package.json tells. */
export interface Package {
  /** `name` of package.json, for messages. */
  readonly name: string;
  readonly manifest: PluginManifest;
}

/** The manifest without checks: for the built-in plugins, whose manifests a test checks. */
export function readPackage(packageJson: { readonly [key: string]: unknown }): Package {
  const block = packageJson.engine as PluginManifest;
  const peers = packageJson.peerDependencies as Record<string, string> | undefined;
  const core = block.core ?? peers?.['@engine/core'];
  return {
    name: String(packageJson.name),
    manifest: { ...block, version: block.version ?? (packageJson.version as string), ...(core === undefined ? {} : { core }) },
  };
}
