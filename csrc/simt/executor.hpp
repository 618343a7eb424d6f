// Blocks of CUDA threads on the host: who is running, who waits where, and what went wrong.
//
// The threads of a block are fibers of one thread of the operating system. A thread runs until it waits (a barrier, a
// collective of its warp) or ends; then the next in the queue runs. Blocks run one after another, on as many threads of
// the operating system as base::parallel_for gives. An error ends the launch, never the process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "simt/fiber.hpp"
#include "simt/types.hpp"

namespace gradkern::simt {

inline constexpr unsigned warp_size = 32;

// A place in a kernel where a thread waits, or where something is wrong.
struct Site {
  const char* operation;
  int line;
  const char* file;
  const char* function;
};
#define GRADKERN_SITE \
  int line = __builtin_LINE(), const char *file = __builtin_FILE(), const char *function = __builtin_FUNCTION()

// One cp.async: what lands at `to` when its group is waited for.
struct Copy {
  void* to;
  const void* from;
  unsigned bytes, source_bytes;
  std::uint64_t group;
};

struct Warp {
  unsigned alive = 0;    // lanes that exist and have not returned
  unsigned arrived = 0;  // lanes that wait in a collective
  unsigned masks[warp_size];
  void* operands[warp_size];
};

struct Block;
class BlockRunner;

struct Thread {
  uint3 index;  // threadIdx
  unsigned linear, lane;
  Block* block;
  Warp* warp;
  Fiber* fiber;  // null before the thread starts
  Site waits;    // where, while it waits
  bool ended;
  std::uint64_t copy_group;
  std::vector<Copy> copies;
};

struct Launch {
  dim3 grid, size;  // gridDim, blockDim
  std::size_t dynamic_bytes;
  std::function<void()> body;  // the kernel with its arguments
  bool counted = false;        // its traffic
};

struct Block {
  BlockRunner* runner;
  const Launch* launch;
  uint3 index;  // blockIdx
  void* dynamic_shared;
};

// The thread that runs now on this thread of the operating system.
extern constinit thread_local Thread* running;

// Waits for every thread of the block. The value is the number of threads whose predicate held.
unsigned block_barrier(const Site& site, bool predicate);

// A collective of the lanes in mask: each posts its operand. The last to arrive gets the operands of all lanes (by
// lane), computes for all, and calls release; the others get null, when that is done.
void* const* warp_arrive(const Site& site, unsigned mask, void* operand);
void warp_release(unsigned mask);

template <class Operand, class Compute>
void warp_collective(const Site& site, unsigned mask, Operand& mine, Compute compute) {
  if (void* const* all = warp_arrive(site, mask, &mine)) {
    compute([all](unsigned lane) -> Operand& { return *static_cast<Operand*>(all[lane]); });
    warp_release(mask);
  }
}

void count_access(const Site& site, const void* address, unsigned bytes);

// Ends the launch with an error that names the running thread and the site.
[[noreturn]] void fail(const Site& site, const std::string& what);

// Where launch was called: said in errors.
struct Grid : dim3 {
  Grid(dim3 size, const char* by = __builtin_FUNCTION()) : dim3(size), launcher(by) {}
  Grid(unsigned size, const char* by = __builtin_FUNCTION()) : dim3(size), launcher(by) {}
  Grid(int size, const char* by = __builtin_FUNCTION()) : dim3(static_cast<unsigned>(size)), launcher(by) {}
  const char* launcher;
};

inline constexpr std::size_t most_dynamic_bytes = 227 << 10;  // of compute capability 9.0

int run(Launch launch, const char* launcher);

// The order in which the threads of a block start and wake, and in which blocks run: GRADKERN_SIMT_ORDER is forward,
// reverse or a number, the seed of a shuffle. In reverse, a warp runs on to the next barrier before another goes on.
struct Order {
  enum Kind { forward, reverse, shuffled } kind = forward;
  std::uint64_t seed = 0;
};
Order order_of(const std::string& text);
void set_order(const Order& order);
Order order();

// The text of the last launch of this thread of the operating system that failed.
const char* last_error();

}  // namespace gradkern::simt
