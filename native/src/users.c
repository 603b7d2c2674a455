#include "users.h"
#include <errno.h>
#include <string.h>

int users_number(const char *text, size_t n, uint32_t *out)
{
	uint64_t v = 0;
	if (!n)
		return -EINVAL;
	for (size_t i = 0; i < n; i++)
		if (text[i] < '0' || text[i] > '9')
			return -EINVAL;
	for (size_t i = 0; i < n; i++) {
		v = v * 10 + (uint64_t)(text[i] - '0');
		if (v >= ID_NONE)
			return -ERANGE;
	}
	*out = (uint32_t)v;
	return 0;
}

struct field { const char *p; size_t n; };

/* Next line split at ':' into exactly up to `max` fields (the last keeps the rest); number of fields, 0 at the end. */
static int next_line(const char **at, const char *end, struct field *fields, int max)
{
	while (*at < end) {
		const char *line = *at, *stop = memchr(line, '\n', (size_t)(end - line));
		if (!stop)
			stop = end;
		*at = stop < end ? stop + 1 : end;
		if (stop > line && stop[-1] == '\r')
			stop--;
		if (stop == line || *line == '#' || memchr(line, 0, (size_t)(stop - line)))
			continue;
		int n = 0;
		while (n < max) {
			const char *colon = n + 1 < max ? memchr(line, ':', (size_t)(stop - line)) : NULL;
			fields[n++] = (struct field){ line, (size_t)((colon ? colon : stop) - line) };
			if (!colon)
				break;
			line = colon + 1;
		}
		return n;
	}
	return 0;
}

static int is(struct field f, const char *text, size_t n) { return f.n == n && !memcmp(f.p, text, n); }

static int add_group(struct users *u, uint32_t gid)
{
	for (uint32_t i = 0; i < u->count; i++)
		if (u->groups[i] == gid)
			return 0;
	if (u->count == USERS_MAX_GROUPS)
		return -ERANGE;
	u->groups[u->count++] = gid;
	return 0;
}

static void copy_text(char *to, size_t size, struct field f)
{
	size_t n = f.n < size ? f.n : 0; /* too long is as good as none */
	memcpy(to, f.p, n);
	to[n] = 0;
}

/* name:password:uid:gid:gecos:home:shell. 1 found, 0 not. A numeric word is always a uid, as Docker has it. */
static int find_user(struct users *u, const char *at, const char *end, const char *word, size_t n)
{
	struct field f[7];
	uint32_t number, uid, gid;
	int numeric = !users_number(word, n, &number);
	for (int count; (count = next_line(&at, end, f, 7));) {
		if (count < 6 || !f[0].n || users_number(f[2].p, f[2].n, &uid) || users_number(f[3].p, f[3].n, &gid))
			continue;
		if (numeric ? uid != number : !is(f[0], word, n))
			continue;
		u->uid = uid;
		u->gid = gid;
		copy_text(u->name, sizeof u->name, f[0]);
		copy_text(u->home, sizeof u->home, f[5]);
		return 1;
	}
	return 0;
}

/* A group by name or number; a number needs no entry. */
static int find_group(const char *at, const char *end, const char *word, size_t n, uint32_t *out)
{
	struct field f[4];
	int r = users_number(word, n, out);
	if (r != -EINVAL)
		return r;
	for (int count; (count = next_line(&at, end, f, 4));)
		if (count >= 3 && is(f[0], word, n) && !users_number(f[2].p, f[2].n, out))
			return 0;
	return -ENOENT;
}

static int add_memberships(struct users *u, const char *at, const char *end)
{
	struct field f[4];
	uint32_t gid;
	size_t n = strlen(u->name);
	for (int count; n && (count = next_line(&at, end, f, 4));) {
		if (count < 4 || users_number(f[2].p, f[2].n, &gid))
			continue;
		const char *p = f[3].p, *stop = p + f[3].n;
		while (p < stop) {
			const char *comma = memchr(p, ',', (size_t)(stop - p));
			if (!comma)
				comma = stop;
			if ((size_t)(comma - p) == n && !memcmp(p, u->name, n)) {
				int r = add_group(u, gid);
				if (r)
					return r;
				break;
			}
			p = comma + 1;
		}
	}
	return 0;
}

static int well_formed(const char *word)
{
	int colons = 0;
	for (const char *p = word; *p; p++) {
		if (*p == ':')
			colons++;
		else if ((unsigned char)*p <= ' ' || *p == 0x7f || *p == ',')
			return 0;
	}
	return colons <= 1 && strcmp(word, ":"); /* neither a user nor a group: a slip, and root is no answer to a slip (CVE-2026-30892) */
}

int users_resolve(struct users *u, const char *passwd, size_t passwd_n, const char *group, size_t group_n, const char *spec,
		  const char *const *extra, size_t extra_n, const char **which)
{
	const char *passwd_end = passwd + passwd_n, *group_end = group + group_n;
	memset(u, 0, sizeof *u);
	*which = spec;
	if (!well_formed(spec))
		return -EINVAL;
	const char *colon = strchr(spec, ':');
	const char *user = spec, *group_word = colon ? colon + 1 : "";
	size_t user_n = colon ? (size_t)(colon - spec) : strlen(spec);
	uint32_t number;
	if (!user_n) {
		user = "0";
		user_n = 1;
	}
	int r = users_number(user, user_n, &number);
	if (r == -ERANGE)
		return r;
	if (!find_user(u, passwd, passwd_end, user, user_n)) {
		if (r)
			return -ENOENT;
		u->uid = number; /* a number needs no entry; its group is 0 */
	}
	if (!u->home[0])
		strcpy(u->home, "/");
	if (*group_word) {
		*which = group_word;
		r = find_group(group, group_end, group_word, strlen(group_word), &u->gid);
		if (r)
			return r;
	}
	r = add_group(u, u->gid);
	if (!r && !*group_word)
		r = add_memberships(u, group, group_end);
	for (size_t i = 0; !r && i < extra_n; i++) {
		*which = extra[i];
		if (!*extra[i] || strchr(extra[i], ':') || !well_formed(extra[i]))
			return -EINVAL;
		r = find_group(group, group_end, extra[i], strlen(extra[i]), &number);
		if (!r)
			r = add_group(u, number);
	}
	return r;
}
