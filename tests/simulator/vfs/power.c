/* The VFS `power`: SQLite on a disk whose power can be cut. It hands everything on to the VFS that was the default, and remembers what a
   real disk could still lose: each write, cut and removal since a file's last sync. A cut takes these back, lets some of them survive in
   any combination, and tears the last one at 512 bytes. Only files under a watched folder are remembered; all others pass through.

   For one thread, as the simulator is. The declarations below are the part of SQLite's ABI that this needs, as sqlite3.h gives it and
   promises to keep (https://sqlite.org/c3ref/vfs.html, io_methods.html): a machine has SQLite more often than its headers. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <fcntl.h>
#include <sys/stat.h>

typedef int64_t i64;
enum { OK = 0, NOMEM = 7, IOERR = 10, SHORT_READ = 522, IO_WRITE = 778, IO_SYNC = 1034, IO_CUT = 1546, IO_DELETE = 2570 };
enum { OPEN_MAIN_DB = 0x100, OPEN_MAIN_JOURNAL = 0x800, OPEN_WAL = 0x80000 };
enum { SECTOR = 512, POWERSAFE = 0x1000, LONGEST = 4096 };
enum { PASS = 0, KILL = 1, POWER = 2 };

typedef struct file file;
typedef struct methods {
  int version;
  int (*close)(file *);
  int (*read)(file *, void *, int, i64);
  int (*write)(file *, const void *, int, i64);
  int (*truncate)(file *, i64);
  int (*sync)(file *, int);
  int (*size)(file *, i64 *);
  int (*lock)(file *, int);
  int (*unlock)(file *, int);
  int (*reserved)(file *, int *);
  int (*control)(file *, int, void *);
  int (*sector)(file *);
  int (*traits)(file *);
  int (*shm_map)(file *, int, int, int, void volatile **);
  int (*shm_lock)(file *, int, int, int);
  void (*shm_barrier)(file *);
  int (*shm_unmap)(file *, int);
} methods; /* version 2: no memory maps, whose writes nobody would see */
struct file { const methods *does; };

typedef struct vfs {
  int version, file_bytes, longest_path;
  struct vfs *next;
  const char *name;
  void *own;
  int (*open)(struct vfs *, const char *, file *, int, int *);
  int (*remove)(struct vfs *, const char *, int);
  int (*access)(struct vfs *, const char *, int, int *);
  int (*full)(struct vfs *, const char *, int, char *);
  void *(*dl_open)(struct vfs *, const char *);
  void (*dl_error)(struct vfs *, int, char *);
  void (*(*dl_sym)(struct vfs *, void *, const char *))(void);
  void (*dl_close)(struct vfs *, void *);
  int (*random)(struct vfs *, int, char *);
  int (*sleep)(struct vfs *, int);
  int (*time)(struct vfs *, double *);
  int (*last_error)(struct vfs *, int, char *);
  int (*time64)(struct vfs *, i64 *);
} vfs; /* version 2: no system calls to be replaced */

/* One change since the last sync. before: what stood there, as much of it as the file had. data: none for a cut to `at` bytes. */
typedef struct change {
  struct change *next; /* the one made before it */
  i64 at, size;        /* of the file before it */
  int n, kept;
  unsigned char *before, *data;
} change;

typedef struct place {
  struct place *next;
  char *path;
  change *last;
  int changes;
  int born;             /* made, and not synced since: its name may be lost */
  unsigned char *ghost; /* what stood there when it was removed, and its folder was not flushed since: it may come back */
  i64 ghost_size;
  int mode;
} place;

typedef struct open_file {
  file base;
  place *at;     /* none for a file that is not watched */
  int announces; /* a journal or a log: when such a one is synced first, SQLite flushes its folder */
  file real[1];
} open_file;

static vfs *under, ours;
static place *places;
static char watched[LONGEST];
static i64 taken, end_at;
static int how, dead, files_alone;
static uint64_t dice = 88172645463325252ULL, counted_syncs, counted_writes;

static unsigned roll(unsigned n) {
  dice ^= dice << 13, dice ^= dice >> 7, dice ^= dice << 17;
  return (unsigned)((dice * 2685821657736338717ULL >> 33) % n);
}

/* Count a step, and end everything at the one that was planned. Returns whether nothing may be done any more. */
static int stopped(int of_sqlite) {
  if (dead) return 1;
  if (of_sqlite && files_alone) return 0;
  taken++;
  if (how != PASS && taken == end_at) dead = 1;
  return dead;
}

static int is_watched(const char *path) {
  size_t n = strlen(watched);
  return n && path && !strncmp(path, watched, n) && path[n] == '/';
}

static place *find(const char *path, int make) {
  place *p;
  for (p = places; p; p = p->next)
    if (!strcmp(p->path, path)) return p;
  if (!make || !(p = calloc(1, sizeof *p))) return NULL;
  if (!(p->path = strdup(path))) { free(p); return NULL; }
  p->mode = 0644, p->next = places, places = p;
  return p;
}

static void synced(place *p) {
  while (p->last) {
    change *c = p->last;
    p->last = c->next;
    free(c->before), free(c->data), free(c);
  }
  p->changes = p->born = 0;
  free(p->ghost);
  p->ghost = NULL;
}

/* A folder was flushed: what was removed from it stays away, and what was made in it keeps its name. */
static void flushed(const char *path) {
  const char *slash = strrchr(path, '/');
  size_t n = slash ? (size_t)(slash - path) + 1 : 0;
  for (place *p = places; p; p = p->next)
    if (!strncmp(p->path, path, n) && !strchr(p->path + n, '/')) {
      free(p->ghost);
      p->ghost = NULL, p->born = 0;
    }
}

static int note(open_file *f, const void *data, int n, i64 at) {
  change *c = calloc(1, sizeof *c);
  i64 size = 0, kept;
  if (!c) return NOMEM;
  if (f->real->does->size(f->real, &size)) { free(c); return IOERR; }
  kept = size > at ? size - at : 0;
  if (data && kept > n) kept = n;
  c->at = at, c->size = size, c->n = data ? n : 0, c->kept = (int)kept;
  if (kept && (!(c->before = malloc(kept)) || f->real->does->read(f->real, c->before, (int)kept, at))) goto bad;
  if (data && n && !(c->data = malloc(n))) goto bad;
  if (data && n) memcpy(c->data, data, n);
  c->next = f->at->last, f->at->last = c, f->at->changes++;
  return OK;
bad:
  free(c->before), free(c);
  return NOMEM;
}

static open_file *of(file *f) { return (open_file *)f; }

static int power_close(file *f) { return of(f)->real->does->close(of(f)->real); }
static int power_read(file *f, void *to, int n, i64 at) { return of(f)->real->does->read(of(f)->real, to, n, at); }

static int power_write(file *f, const void *data, int n, i64 at) {
  open_file *o = of(f);
  int error, last;
  if (!o->at) return o->real->does->write(o->real, data, n, at);
  counted_writes++;
  if (dead) return IO_WRITE;
  last = stopped(1);
  if (last && how == KILL) return IO_WRITE; /* the power goes while it is written, and a kill comes before it */
  if ((error = note(o, data, n, at)) || (error = o->real->does->write(o->real, data, n, at))) return error;
  return last ? IO_WRITE : OK;
}

static int power_truncate(file *f, i64 size) {
  open_file *o = of(f);
  int error;
  if (!o->at) return o->real->does->truncate(o->real, size);
  if (stopped(1)) return IO_CUT;
  if ((error = note(o, NULL, 0, size))) return error;
  return o->real->does->truncate(o->real, size);
}

static int power_sync(file *f, int flags) {
  open_file *o = of(f);
  if (!o->at) return o->real->does->sync(o->real, flags);
  counted_syncs++;
  if (stopped(1)) return IO_SYNC;
  if (o->at->born && o->announces) flushed(o->at->path);
  synced(o->at); /* nothing waits for a real disk: that it would be there is what this says */
  return OK;
}

static int power_size(file *f, i64 *size) { return of(f)->real->does->size(of(f)->real, size); }
static int power_lock(file *f, int level) { return of(f)->real->does->lock(of(f)->real, level); }
static int power_unlock(file *f, int level) { return of(f)->real->does->unlock(of(f)->real, level); }
static int power_reserved(file *f, int *out) { return of(f)->real->does->reserved(of(f)->real, out); }
static int power_control(file *f, int op, void *arg) { return of(f)->real->does->control(of(f)->real, op, arg); }
static int power_sector(file *f) { return of(f)->real->does->sector(of(f)->real); }
static int power_traits(file *f) { return of(f)->real->does->traits(of(f)->real) & POWERSAFE; }
static int power_shm_map(file *f, int page, int size, int extend, void volatile **out) {
  return of(f)->real->does->shm_map(of(f)->real, page, size, extend, out);
}
static int power_shm_lock(file *f, int at, int n, int flags) { return of(f)->real->does->shm_lock(of(f)->real, at, n, flags); }
static void power_shm_barrier(file *f) { of(f)->real->does->shm_barrier(of(f)->real); }
static int power_shm_unmap(file *f, int remove) { return of(f)->real->does->shm_unmap(of(f)->real, dead ? 0 : remove); }

static const methods does = {
  2, power_close, power_read, power_write, power_truncate, power_sync, power_size, power_lock, power_unlock, power_reserved, power_control,
  power_sector, power_traits, power_shm_map, power_shm_lock, power_shm_barrier, power_shm_unmap,
};

static int power_open(vfs *v, const char *path, file *f, int flags, int *out) {
  open_file *o = of(f);
  struct stat found;
  int there, error, kept = flags & (OPEN_MAIN_DB | OPEN_MAIN_JOURNAL | OPEN_WAL) && is_watched(path);
  (void)v;
  memset(o, 0, sizeof *o);
  there = path && !stat(path, &found);
  if (kept && !there && stopped(1)) return 14; /* SQLITE_CANTOPEN: the dead make no files */
  if ((error = under->open(under, path, o->real, flags, out))) return error;
  if (kept) {
    if (!(o->at = find(path, 1))) { o->real->does->close(o->real); return NOMEM; }
    o->announces = !(flags & OPEN_MAIN_DB);
    if (!there) o->at->born = 1;
    if (!stat(path, &found)) o->at->mode = found.st_mode & 0777;
  }
  o->base.does = &does;
  return OK;
}

static unsigned char *contents(const char *path, i64 *size) {
  struct stat found;
  unsigned char *data;
  i64 done = 0;
  int handle = open(path, O_RDONLY | O_CLOEXEC);
  if (handle < 0) return NULL;
  if (fstat(handle, &found) || !(data = malloc(found.st_size + 1))) { close(handle); return NULL; }
  while (done < found.st_size) {
    ssize_t n = pread(handle, data + done, found.st_size - done, done);
    if (n <= 0) break;
    done += n;
  }
  close(handle);
  *size = done;
  return data;
}

/* Take back what was not synced: *data becomes the file as it was at its last sync. */
static int undo(place *p, unsigned char **data, i64 *size) {
  for (change *c = p->last; c; c = c->next) {
    i64 most = c->size > *size ? c->size : *size;
    unsigned char *more = realloc(*data, most + 1);
    if (!more) return NOMEM;
    *data = more;
    if (c->size > *size) memset(more + *size, 0, c->size - *size);
    *size = c->size;
    if (c->kept) memcpy(more + c->at, c->before, c->kept);
  }
  return OK;
}

static int redo(const change *c, int n, unsigned char **data, i64 *size) {
  if (!c->data) {
    if (c->at < *size) *size = c->at;
    return OK;
  }
  if (c->at + n > *size) {
    unsigned char *more = realloc(*data, c->at + n + 1);
    if (!more) return NOMEM;
    memset(more + *size, 0, c->at + n - *size);
    *data = more, *size = c->at + n;
  }
  memcpy(*data + c->at, c->data, n);
  return OK;
}

static int put(const place *p, const unsigned char *data, i64 size) {
  i64 done = 0;
  int handle = open(p->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, p->mode);
  if (handle < 0) return IOERR;
  fchmod(handle, p->mode);
  while (done < size) {
    ssize_t n = pwrite(handle, data + done, size - done, done);
    if (n <= 0) { close(handle); return IOERR; }
    done += n;
  }
  close(handle);
  return OK;
}

/* Let one file be what a cut leaves of it. Returns a negative number on trouble, else how many of its changes were lost or torn. */
static int survive(place *p) {
  i64 size = 0;
  int lost = 0, manner = (int)roll(4), i = 0, error = 0; /* none; the first ones; any of them; all but that the last one may be torn */
  unsigned char *data;
  change **order, *c;
  if (!p->changes && !p->ghost && !p->born) return 0;
  data = contents(p->path, &size);
  if (!data || (p->born && roll(2))) { /* its name is lost, or it was removed */
    free(data);
    unlink(p->path);
    lost = p->changes;
    if (p->ghost && roll(2)) error = put(p, p->ghost, p->ghost_size);
    return error ? -1 : lost;
  }
  if (!(order = malloc((p->changes + 1) * sizeof *order))) { free(data); return -1; }
  for (i = p->changes, c = p->last; c; c = c->next) order[--i] = c;
  error = undo(p, &data, &size);
  unsigned first = manner == 1 && p->changes ? roll(p->changes) : 0;
  for (i = 0; i < p->changes && !error; i++) {
    int n = order[i]->n, keep = manner == 3 || (manner == 1 && i <= (int)first) || (manner == 2 && roll(2));
    int last = manner == 1 ? i == (int)first : i == p->changes - 1;
    if (keep && last && n && roll(2)) { /* in the middle of it: some of its sectors are there */
      i64 to = order[i]->at + roll(n), edge = to / SECTOR * SECTOR - order[i]->at;
      n = edge > 0 ? (int)edge : 0;
      lost++;
      if (n) error = redo(order[i], n, &data, &size);
    } else if (keep) error = redo(order[i], n, &data, &size);
    else lost++;
  }
  free(order);
  if (!error) error = put(p, data, size);
  free(data);
  return error ? -1 : lost;
}

static int power_remove(vfs *v, const char *path, int flush) {
  place *p;
  (void)v;
  if (is_watched(path) && !access(path, F_OK)) {
    if (stopped(1)) return IO_DELETE;
    if ((p = find(path, 1))) { /* until its folder is flushed, what a cut had left under this name may come back */
      i64 size = p->ghost_size;
      unsigned char *left = p->born ? p->ghost : contents(path, &size);
      if (p->born) p->ghost = NULL;
      else if (left && undo(p, &left, &size)) { free(left); return NOMEM; }
      synced(p);
      if (flush) free(left), flushed(path);
      else p->ghost = left, p->ghost_size = size;
    }
  }
  return under->remove(under, path, flush);
}

static int power_access(vfs *v, const char *path, int flags, int *out) { (void)v; return under->access(under, path, flags, out); }
static int power_full(vfs *v, const char *path, int n, char *out) { (void)v; return under->full(under, path, n, out); }
static void *power_dl_open(vfs *v, const char *path) { (void)v; return under->dl_open(under, path); }
static void power_dl_error(vfs *v, int n, char *out) { (void)v; under->dl_error(under, n, out); }
static void (*power_dl_sym(vfs *v, void *lib, const char *name))(void) { (void)v; return under->dl_sym(under, lib, name); }
static void power_dl_close(vfs *v, void *lib) { (void)v; under->dl_close(under, lib); }
static int power_random(vfs *v, int n, char *out) { /* of the seed: a WAL's salt is drawn here */
  (void)v;
  for (int i = 0; i < n; i++) out[i] = (char)roll(256);
  return n;
}
static int power_sleep(vfs *v, int us) { (void)v; return under->sleep(under, us); }
static int power_time(vfs *v, double *out) { (void)v; return under->time(under, out); }
static int power_last_error(vfs *v, int n, char *out) { (void)v; return under->last_error ? under->last_error(under, n, out) : 0; }
static int power_time64(vfs *v, i64 *out) { (void)v; return under->time64(under, out); }

/* What the simulator calls. */

/* Register it. find, add: SQLite's own sqlite3_vfs_find and sqlite3_vfs_register. Returns 0 when all is well. */
int power_register(vfs *(*find_vfs)(const char *), int (*add)(vfs *, int), int by_default) {
  if (!under) {
    under = find_vfs(NULL);
    if (!under || under->version < 2) { under = NULL; return 1; }
    ours = (vfs){
      2, (int)sizeof(open_file) + under->file_bytes, under->longest_path, NULL, "power", NULL, power_open, power_remove, power_access,
      power_full, power_dl_open, power_dl_error, power_dl_sym, power_dl_close, power_random, power_sleep, power_time, power_last_error,
      power_time64,
    };
  }
  return by_default ? add(&ours, 1) : add(&ours, 0) || add(under, 1);
}

/* Watch what lies under a folder from now on, and nothing else; forget all else. Returns 0 when all is well. */
int power_watch(const char *folder, uint64_t seed) {
  if (strlen(folder) >= sizeof watched) return 1;
  strcpy(watched, folder);
  while (places) {
    place *p = places;
    places = p->next;
    synced(p);
    free(p->path), free(p);
  }
  dice = seed ? seed : 88172645463325252ULL;
  taken = 0, how = PASS, dead = 0;
  return 0;
}

/* Count steps from 0 on; end everything at step `at`: manner 0 never, 1 as a kill, 2 as the power goes. files: SQLite's do not count. */
void power_arm(i64 at, int manner, int files) { taken = 0, end_at = at, how = manner, files_alone = files, dead = 0; }
/* Count a step that is made elsewhere. Returns whether everything has ended. */
int power_step(void) { return stopped(0); }
int power_dead(void) { return dead; }
i64 power_taken(void) { return taken; }
void power_revive(void) { how = PASS, dead = 0; }
uint64_t power_writes(void) { return counted_writes; }
uint64_t power_syncs(void) { return counted_syncs; }

/* Cut the power of all that lies under a folder, whose files nobody has open any more. Returns what was lost or torn, -1 on trouble. */
i64 power_cut(const char *folder, uint64_t seed) {
  size_t n = strlen(folder);
  i64 lost = 0;
  char beside[LONGEST];
  uint64_t before = dice;
  dice = seed ? seed : 1;
  for (int i = 0; i < 8; i++) roll(2);
  for (place *p = places; p; p = p->next) {
    int one;
    if (strncmp(p->path, folder, n) || p->path[n] != '/') continue;
    if ((one = survive(p)) < 0) { dice = before; return -1; }
    lost += one;
    synced(p);
    if (snprintf(beside, sizeof beside, "%s-shm", p->path) < (int)sizeof beside) unlink(beside); /* it was memory */
  }
  dice = before;
  return lost;
}
