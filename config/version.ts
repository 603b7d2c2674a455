import root from '../package.json' with { type: 'json' };

/** Version of the product, and of the plugin API: they go together. */
export const version: string = root.version;
