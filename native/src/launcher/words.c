/* What the launcher must know of the command line: where the verb is, and whether it only looks. */
#include "launcher.h"

/* Flags before the verb that take a value: config/global-flags.ts. */
static const char *const with_value[] = { "--root", "--run-root", "--set", NULL };

int find_verb(int argc, char **argv, bool *no_daemon) {
	*no_daemon = false;
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--no-daemon")) {
			*no_daemon = true;
			continue;
		}
		bool flag = false;
		for (int f = 0; with_value[f] && !flag; f++) {
			size_t n = strlen(with_value[f]);
			if (strncmp(argv[i], with_value[f], n)) continue;
			flag = argv[i][n] == '=' || !argv[i][n];
			if (!argv[i][n]) i++;
		}
		if (!flag) return i < argc ? i : argc;
	}
	return argc;
}

static bool among(const char *word, const char *const *list) {
	for (; *list; list++)
		if (!strcmp(word, *list)) return true;
	return false;
}

bool only_reads(int argc, char **argv) {
	static const char *const verbs[] = { "ps", "images", "inspect", "logs", "info", "version", "history", "diff", "port", "top", "stats", "events", "wait", "config", "help", "--help", "-h",
		"--version", "-v", NULL };
	static const char *const groups[] = { "container", "image", "volume", "network", "system", "plugin", NULL };
	static const char *const subverbs[] = { "ls", "list", "ps", "inspect", "logs", "history", "diff", "port", "top", "stats", "wait", "why", "df", "info", "events", NULL };
	bool ignored;
	int verb = find_verb(argc, argv, &ignored);
	if (verb >= argc) return true; /* the help */
	if (among(argv[verb], groups)) return verb + 1 >= argc || among(argv[verb + 1], subverbs);
	return among(argv[verb], verbs);
}
