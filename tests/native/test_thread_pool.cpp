// The pool: every chunk once, nested calls, exceptions, several callers, resizing, and use in a forked child.
#include <sys/wait.h>
#include <unistd.h>

#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "base/thread_pool.hpp"
#include "check.hpp"

namespace gradkern {
namespace {

// How often each of `chunks` chunks ran.
std::vector<int> runs(std::int64_t chunks) {
  std::vector<std::atomic<int>> count(static_cast<std::size_t>(chunks));
  base::parallel_for(chunks, [&](std::int64_t c) { ++count[static_cast<std::size_t>(c)]; });
  return {count.begin(), count.end()};
}

void every_chunk_once(int threads) {
  for (const std::int64_t chunks : {0, 1, 2, 7, 1000}) {
    CHECK(runs(chunks) == std::vector<int>(static_cast<std::size_t>(chunks), 1), threads, chunks);
  }
}

void nested(int threads) {
  std::atomic<int> total{0};
  base::parallel_for(9, [&](std::int64_t) { base::parallel_for(5, [&](std::int64_t) { ++total; }); });
  CHECK(total == 45, threads, total.load());
  std::atomic<int> inside{0};
  base::parallel_for(9, [&](std::int64_t) { inside += base::in_parallel_region(); });
  CHECK(inside == (threads == 1 ? 0 : 9) && !base::in_parallel_region(), threads, inside.load());
}

void exceptions(int threads) {
  for (const std::int64_t bad : {0, 50, 99}) {
    std::string message;
    try {
      base::parallel_for(100, [&](std::int64_t c) {
        if (c == bad) throw std::runtime_error("chunk " + std::to_string(c));
      });
    } catch (const std::runtime_error& error) {
      message = error.what();
    }
    CHECK(message == "chunk " + std::to_string(bad), threads, message);
    every_chunk_once(threads);  // the pool is as good as new
  }
}

void several_callers(int threads) {
  std::atomic<std::int64_t> total{0};
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&] {
      for (int round = 0; round < 50; ++round) base::parallel_for(20, [&](std::int64_t c) { total += c; });
    });
  }
  for (auto& caller : callers) caller.join();
  CHECK(total == 4 * 50 * 190, threads, total.load());
}

// A child of fork has no workers: it must still get its results, and leave.
void forked_child(int threads) {
  every_chunk_once(threads);  // the parent's workers exist
  const pid_t child = fork();
  if (child == 0) _exit(runs(100) == std::vector<int>(100, 1) ? 0 : 1);
  int status = -1;
  waitpid(child, &status, 0);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, threads, status);
  every_chunk_once(threads);
}

void refused_counts() {
  for (const int count : {0, -1, 1025}) {
    bool refused = false;
    try {
      base::set_num_threads(count);
    } catch (const std::invalid_argument&) {
      refused = true;
    }
    CHECK(refused, count);
  }
}

}  // namespace
}  // namespace gradkern

int main() {
  using namespace gradkern;
  for (const int threads : {1, 2, 3, 7, 2}) {
    base::set_num_threads(threads);
    CHECK(base::num_threads() == threads, threads);
    every_chunk_once(threads);
    nested(threads);
    exceptions(threads);
    several_callers(threads);
    forked_child(threads);
  }
  refused_counts();
  CHECK(base::chunk_count(0, 4) == 0 && base::chunk_count(8, 4) == 2 && base::chunk_count(9, 4) == 3);
  return test::report();
}
