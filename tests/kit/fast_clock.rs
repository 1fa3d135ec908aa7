//! A clock that runs faster than the machine's, so that a test has an hour of minutes in some of them.

use crate::Cluster;
use crate::shifted_clock::compile;
use std::time::{SystemTime, UNIX_EPOCH};

/// What programs ask for the time, and what they sleep by, in a library that goes before the system's. All times go
/// faster from a common beginning on; waits of an epoll are shorter by as much. Timeouts by setitimer, and sleeps by
/// select, stay as long as they are: they may be late.
const FAST: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/time.h>
#include <time.h>
static long rate = 1, begun, beginning;
__attribute__((constructor)) static void read_environment(void) {
  const char *text = getenv("CLOCK_RATE");
  if (text) rate = atol(text);
  text = getenv("CLOCK_BEGUN");
  if (text) begun = atol(text);
  text = getenv("CLOCK_BEGINNING");
  beginning = text ? atol(text) : begun;
}
int clock_gettime(clockid_t clock, struct timespec *time) {
  static int (*of_the_system)(clockid_t, struct timespec *);
  if (!of_the_system) of_the_system = dlsym(RTLD_NEXT, "clock_gettime");
  int result = of_the_system(clock, time);
  if (result || clock == CLOCK_PROCESS_CPUTIME_ID || clock == CLOCK_THREAD_CPUTIME_ID) return result;
  int is_wall = clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
  long from = is_wall ? begun : 0, to = is_wall ? beginning : 0;
  long nanoseconds = time->tv_nsec * rate;
  time->tv_sec = to + (time->tv_sec - from) * rate + nanoseconds / 1000000000;
  time->tv_nsec = nanoseconds % 1000000000;
  return 0;
}
int gettimeofday(struct timeval *time, void *zone) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  time->tv_sec = now.tv_sec;
  time->tv_usec = now.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *result) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (result) *result = now.tv_sec;
  return now.tv_sec;
}
static int shorter(int ms) { return ms > 0 ? (int)((ms + rate - 1) / rate) : ms; }
int epoll_wait(int set, struct epoll_event *events, int most, int ms) {
  static int (*of_the_system)(int, struct epoll_event *, int, int);
  if (!of_the_system) of_the_system = dlsym(RTLD_NEXT, "epoll_wait");
  return of_the_system(set, events, most, shorter(ms));
}
int epoll_pwait(int set, struct epoll_event *events, int most, int ms, const sigset_t *mask) {
  static int (*of_the_system)(int, struct epoll_event *, int, int, const sigset_t *);
  if (!of_the_system) of_the_system = dlsym(RTLD_NEXT, "epoll_pwait");
  return of_the_system(set, events, most, shorter(ms), mask);
}
"#;

/// The clock of a cluster, and of processes beside it that are started with [`FastClock::environment`].
pub struct FastClock {
    library: String,
    rate: String,
    begun: String,
    beginning: String,
}

impl FastClock {
    /// A clock that is this much faster, for a cluster that has not been started. It begins now.
    pub fn of(cluster: &Cluster, rate: u32) -> FastClock {
        FastClock::beginning_at(cluster, rate, unix_time())
    }

    /// One that begins at another time, in seconds since 1970.
    pub fn beginning_at(cluster: &Cluster, rate: u32, beginning: u64) -> FastClock {
        let library = format!("{}/fast.so", cluster.host());
        compile(FAST, &library);
        let [rate, begun, beginning] = [rate.into(), unix_time(), beginning].map(|number: u64| number.to_string());
        FastClock { library, rate, begun, beginning }
    }

    pub fn environment(&self) -> [(&str, &str); 4] {
        [
            ("LD_PRELOAD", &self.library),
            ("CLOCK_RATE", &self.rate),
            ("CLOCK_BEGUN", &self.begun),
            ("CLOCK_BEGINNING", &self.beginning),
        ]
    }
}

fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs()
}
