export const runPlugin = async (_a: unknown, _f: unknown): Promise<number> => 0;
