#pragma once

long long now_ns(void);
void sleep_us(long us);

// What must be gone for a run to be over: entries of a folder ("FOLDER" or "FOLDER:PREFIX").
void watch_folder(const char *spec);
// Processes by the name that the kernel has of them and, when many could be called so, what their command line or their open files speak of ("COMM:PATH").
void watch_processes(const char *spec);
// Runs use up something that was there before (a pool, `most` at a time): of what was there, one of each kind must go; new ones may come.
void watch_used(int most);
int watches(void);
void watch_before(void);
// Since watch_before: all that came is gone (with watch_used: one of each kind that was there). 0 when it takes longer than so many ms.
int watch_gone(int deadline_ms);
// There is no more of anything than at watch_before, or than a pool may hold.
int watch_settled(int deadline_ms);
