// Does with an OCI runtime what a caller's shim does: create, start, wait for the end of the container's program, delete.
//   cycle RUNTIME ROOT BUNDLE ID [FLAG...]      flags go before the verb
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static char **words;
static int count;

static void fail(const char *what) {
  dprintf(2, "cycle: %s: %s\n", what, strerror(errno));
  exit(1);
}

// vfork: what it costs is not the runtime's
static void run(const char *verb, char *const rest[], int n) {
  char *argv[32];
  int at = 0;
  argv[at++] = words[1];
  argv[at++] = "--root";
  argv[at++] = words[2];
  for (int i = 5; i < count && at < 20; i++) argv[at++] = words[i];
  argv[at++] = (char *)verb;
  for (int i = 0; i < n; i++) argv[at++] = rest[i];
  argv[at] = NULL;
  pid_t pid = vfork();
  if (pid < 0) fail("vfork");
  if (pid == 0) {
    execv(argv[0], argv);
    _exit(127);
  }
  int status;
  while (waitpid(pid, &status, 0) < 0)
    if (errno != EINTR) fail("waitpid");
  if (status != 0) {
    dprintf(2, "cycle: %s ended with status 0x%x\n", verb, status);
    exit(1);
  }
}

int main(int argc, char **argv) {
  if (argc < 5) return 2;
  words = argv;
  count = argc;
  if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0) fail("PR_SET_CHILD_SUBREAPER");
  char file[4096];
  snprintf(file, sizeof file, "%s/%s.pid", argv[3], argv[4]);
  run("create", (char *[]){"--bundle", argv[3], "--pid-file", file, argv[4]}, 5);
  char text[32] = "";
  int fd = open(file, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || read(fd, text, sizeof text - 1) <= 0) fail(file);
  close(fd);
  unlink(file);
  run("start", (char *[]){argv[4]}, 1);
  int status;
  while (waitpid(atoi(text), &status, 0) < 0)
    if (errno != EINTR) fail("waitpid of the container: is it our child?");
  if (status != 0) {
    dprintf(2, "cycle: the container ended with status 0x%x\n", status);
    return 1;
  }
  run("delete", (char *[]){argv[4]}, 1);
  return 0;
}
