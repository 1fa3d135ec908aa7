//! A wall clock that a test sets while the server runs.

use crate::Cluster;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

/// What Postgres asks for the time, in a library that goes before the system's: it adds what is in a file, to all processes
/// at once.
const SHIFTED: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
static const volatile long *shift;
__attribute__((constructor)) static void map(void) {
  const char *path = getenv("CLOCK_SHIFT");
  int file = path ? open(path, O_RDONLY) : -1;
  void *memory = file < 0 ? MAP_FAILED : mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
  if (memory != MAP_FAILED) shift = memory;
}
int gettimeofday(struct timeval *time, void *zone) {
  int (*of_the_system)(struct timeval *, void *) = dlsym(RTLD_NEXT, "gettimeofday");
  int result = of_the_system(time, zone);
  if (shift) time->tv_sec += *shift;
  return result;
}
"#;

pub(crate) fn compile(source: &str, library: &str) {
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-x", "c", "-", "-o", library, "-ldl"]);
    let mut cc = cc.stdin(Stdio::piped()).spawn().expect("cc");
    cc.stdin.take().expect("a pipe").write_all(source.as_bytes()).expect("cc reads");
    assert!(cc.wait().expect("cc").success());
}

/// The clock of one cluster.
pub struct ShiftedClock {
    file: fs::File,
    library: String,
    shift: String,
}

impl ShiftedClock {
    /// A clock for a cluster that has not been started: it is to be started with [`ShiftedClock::environment`].
    pub fn of(cluster: &Cluster) -> ShiftedClock {
        let path = |name: &str| format!("{}/{name}", cluster.host());
        let (shift, library) = (path("shift"), path("shifted.so"));
        fs::write(&shift, 0_i64.to_ne_bytes()).expect("write");
        compile(SHIFTED, &library);
        // In place: the file is mapped.
        let file = fs::OpenOptions::new().write(true).open(&shift).expect("the file");
        ShiftedClock { file, library, shift }
    }

    pub fn environment(&self) -> [(&str, &str); 2] {
        [("LD_PRELOAD", &self.library), ("CLOCK_SHIFT", &self.shift)]
    }

    /// Has all processes of the server see a time that is so many seconds later than the machine's.
    pub fn shift(&mut self, seconds: i64) {
        use std::os::unix::fs::FileExt;
        self.file.write_all_at(&seconds.to_ne_bytes(), 0).expect("write");
    }
}
