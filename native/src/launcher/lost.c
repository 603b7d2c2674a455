/* engined went away in the middle of a command. */
#include "launcher.h"

#include <fcntl.h>
#include <sys/stat.h>

/* A text of a flat JSON object, unescaped as far as it is printable. */
static bool field(const char *json, const char *name, char *to, size_t size) {
	const char *p = strstr(json, name);
	if (!p) return false;
	p += strlen(name);
	while (*p == ' ' || *p == ':') p++;
	if (*p++ != '"') return false;
	size_t n = 0;
	for (; *p && *p != '"' && n < size - 1; p++) {
		if (*p == '\\' && p[1]) {
			p++;
			if (*p != '"' && *p != '\\' && *p != '/') {
				to[n++] = ' '; /* a line break, or what nobody should write here */
				continue;
			}
		}
		to[n++] = (unsigned char)*p < ' ' ? ' ' : *p;
	}
	to[n] = 0;
	return n > 0;
}

void engined_lost(int folder, int argc, char **argv, bool untouched, int64_t asked_ns) {
	if (untouched && !oci) run_local(argc, argv);
	if (folder < 0) die("its own process ended while it served this command; what was begun is undone by the next command", NULL);
	char text[2048], reason[1024], plugin[256];
	struct stat st;
	/* the clock of file times is a tick behind */
	bool fresh = !fstatat(folder, ENGINED_FILE_DIED, &st, AT_SYMLINK_NOFOLLOW) && st.st_mtim.tv_sec * 1000000000LL + st.st_mtim.tv_nsec >= asked_ns - 20000000LL;
	/* it stays: other commands were cut short by the same end */
	if (!fresh || read_text(folder, ENGINED_FILE_DIED, text, sizeof text) <= 0 || !field(text, "\"reason\"", reason, sizeof reason)) strcpy(reason, "it was killed, or crashed");
	else if (field(text, "\"plugin\"", plugin, sizeof plugin) && !strstr(reason, plugin) && strlen(reason) + strlen(plugin) + 16 < sizeof reason) {
		strcat(reason, " (plugin ");
		strcat(reason, plugin);
		strcat(reason, ")");
	}
	die("the resident engine ended while it served this command: ", reason, "; containers go on, what was begun is undone by the next command", NULL);
}
