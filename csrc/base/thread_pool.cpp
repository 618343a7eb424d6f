#include "base/thread_pool.hpp"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "base/expects.hpp"

namespace gradkern::base {
namespace {

constexpr int max_threads = 1024;

int initial_threads() {
  if (const char* text = std::getenv("GRADKERN_NUM_THREADS")) {
    char* end = nullptr;
    const long count = std::strtol(text, &end, 10);
    expects(end != text && *end == '\0' && count >= 1 && count <= max_threads,
            "GRADKERN_NUM_THREADS: must be a whole number from 1 to 1024");
    return static_cast<int>(count);
  }
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
  return 1;
}

thread_local bool inside = false;  // this thread is running a chunk

struct Job {
  std::int64_t chunks = 0;
  const std::function<void(std::int64_t)>* body = nullptr;
  std::atomic<std::int64_t> next{0};
  std::exception_ptr error;
  std::mutex error_mutex;

  void run() {
    for (std::int64_t c; (c = next.fetch_add(1)) < chunks;) {
      try {
        (*body)(c);
      } catch (...) {
        const std::lock_guard lock(error_mutex);
        if (!error) error = std::current_exception();
        next = chunks;
      }
    }
  }
};

// A short while of looking before sleeping: the next region of a chain of layers begins within microseconds, and waking
// a thread takes longer than a small product. Not where threads would spin on one another's processor.
class Spin {
 public:
  explicit Spin(int threads) : looks_(threads <= initial_threads() ? 4000 : 0) {}
  template <class Done>
  void until(Done done) const {
    for (int i = 0; i < looks_ && !done(); ++i) {
#if defined(__x86_64__)
      __builtin_ia32_pause();
#elif defined(__aarch64__)
      asm volatile("yield");
#endif
    }
  }

 private:
  int looks_;
};

class Pool {
 public:
  explicit Pool(int threads) : spin_(threads) {
    for (int i = 1; i < threads; ++i) {
      try {
        workers_.emplace_back([this] { work(); });
      } catch (const std::system_error&) {
        return;  // the system gives no more threads: fewer do the same work
      }
    }
  }
  ~Pool() {
    stop_ = true;
    ++generation_;
    generation_.notify_all();
    for (auto& worker : workers_) worker.join();
  }

  void run(Job& job) {
    job_ = &job;
    busy_ = static_cast<int>(workers_.size());
    ++generation_;
    generation_.notify_all();
    job.run();
    spin_.until([this] { return busy_ == 0; });
    for (int busy; (busy = busy_) != 0;) busy_.wait(busy);
  }

 private:
  void work() {
    inside = true;
    for (std::uint32_t seen = 0;; ++seen) {
      spin_.until([&] { return generation_ != seen; });
      generation_.wait(seen);
      if (stop_) return;
      job_->run();
      if (--busy_ == 0) busy_.notify_one();
    }
  }

  const Spin spin_;
  std::vector<std::thread> workers_;
  Job* job_ = nullptr;
  std::atomic<std::uint32_t> generation_{0};  // one more at every job: published after job_ and busy_
  std::atomic<int> busy_{0};
  std::atomic<bool> stop_{false};
};

// The pool is leaked at exit on purpose: joining threads from a static destructor deadlocks in a forked child.
struct State {
  std::mutex in_use;  // one parallel region at a time; another caller runs its own chunks
  std::atomic<int> threads{initial_threads()};
  Pool* pool = nullptr;
};

// A forked child has none of its parent's threads, and its mutexes may be locked for ever: it starts afresh.
std::atomic<State*>& current_state() {
  static std::atomic<State*> current{[] {
    pthread_atfork(nullptr, nullptr, [] {
      State* fresh = new State;
      fresh->threads = current_state().load()->threads.load();
      current_state() = fresh;
    });
    return new State;
  }()};
  return current;
}

State& state() { return *current_state(); }

void run_serially(std::int64_t chunks, const std::function<void(std::int64_t)>& body) {
  for (std::int64_t c = 0; c < chunks; ++c) body(c);
}

}  // namespace

int num_threads() { return state().threads; }
bool in_parallel_region() { return inside; }

void set_num_threads(int count) {
  expects(count >= 1 && count <= max_threads, "set_num_threads: count must be between 1 and 1024");
  expects(!inside, "set_num_threads: called from inside a parallel region");
  State& s = state();
  const std::lock_guard lock(s.in_use);
  delete s.pool;
  s.pool = nullptr;
  s.threads = count;
}

void parallel_for(std::int64_t chunks, const std::function<void(std::int64_t)>& body) {
  State& s = state();
  if (inside || chunks <= 1 || s.threads == 1) return run_serially(chunks, body);
  std::unique_lock lock(s.in_use, std::try_to_lock);
  if (!lock.owns_lock()) return run_serially(chunks, body);
  if (!s.pool) s.pool = new Pool(s.threads);
  Job job;
  job.chunks = chunks;
  job.body = &body;
  struct Inside {
    Inside() { inside = true; }
    ~Inside() { inside = false; }
  };
  {
    const Inside guard;
    s.pool->run(job);
  }
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace gradkern::base
