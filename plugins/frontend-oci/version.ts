/** The newest runtime spec whose fields are all known. */
export const SPEC_VERSION = '1.3.0';

/** In the form of runc's: dockerd and go-runc read `version` and `commit:` of it. */
export const versionText = (version: string): string => `engine-oci version ${version}\ncommit: ${version}\nspec: ${SPEC_VERSION}\n`;
