#include "simt/executor.hpp"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <numeric>

#include "base/expects.hpp"
#include "base/thread_pool.hpp"
#include "formats/encode.hpp"
#include "simt/block_runner.hpp"

namespace gradkern::simt {
namespace {

std::mutex order_mutex;
Order& current_order() {
  static Order order = [] {
    const char* text = std::getenv("GRADKERN_SIMT_ORDER");
    return order_of(text ? text : "forward");
  }();
  return order;
}

BlockOrder block_order(unsigned count, const Order& how) {
  BlockOrder order{std::vector<unsigned>(count), 0, how.kind == Order::reverse};
  std::iota(order.threads.begin(), order.threads.end(), 0u);
  if (how.kind == Order::reverse) {
    std::reverse(order.threads.begin(), order.threads.end());
    order.lane_flip = warp_size - 1;
  }
  if (how.kind == Order::shuffled) {
    for (unsigned i = count; i > 1; --i)
      std::swap(order.threads[i - 1], order.threads[formats::random_bits(how.seed, i) % i]);
    order.lane_flip = formats::random_bits(how.seed, 0) % warp_size;
  }
  return order;
}

// Blocks by a stride that has no divisor in common with their number: a permutation.
std::uint64_t block_stride(std::uint64_t blocks, const Order& how) {
  if (how.kind == Order::forward) return 1;
  if (how.kind == Order::reverse) return blocks - 1;
  for (std::uint64_t i = 0;; ++i) {
    const std::uint64_t stride = formats::random_bits(how.seed, i) % blocks;
    if (std::gcd(stride, blocks) == 1) return stride;
  }
}

// Empty, or why CUDA would refuse.
std::string refusal(const Launch& launch) {
  const std::uint64_t threads = std::uint64_t(launch.size.x) * launch.size.y * launch.size.z;
  const std::uint64_t blocks = std::uint64_t(launch.grid.x) * launch.grid.y * launch.grid.z;
  if (running) return "from inside a kernel";
  if (threads < 1 || threads > 1024) return "a block has 1 to 1024 threads, got " + std::to_string(threads);
  if (launch.size.z > 64) return "a block has at most 64 threads in z, got " + std::to_string(launch.size.z);
  if (launch.grid.y > 65535 || launch.grid.z > 65535) return "a grid has at most 65535 blocks in y and z";
  if (blocks < 1 || blocks > 0x7FFFFFFF) return "a grid has 1 to 2147483647 blocks, got " + std::to_string(blocks);
  if (launch.dynamic_bytes > most_dynamic_bytes) {
    return "a block has at most 232448 bytes of dynamic shared memory, got " + std::to_string(launch.dynamic_bytes);
  }
  return {};
}

std::atomic<bool> counting{false};
thread_local Traffic last_traffic;
thread_local std::string last_error_text;

std::string run_blocks(const Launch& launch) {
  const Order how = order();
  const std::uint64_t blocks = std::uint64_t(launch.grid.x) * launch.grid.y * launch.grid.z;
  const BlockOrder in_block = block_order(launch.size.x * launch.size.y * launch.size.z, how);
  const std::uint64_t stride = block_stride(blocks, how), first = how.kind == Order::reverse ? blocks - 1 : 0;

  std::mutex mutex;
  std::string error;
  Traffic traffic;
  std::atomic<bool> stopped{false};
  base::parallel_for(static_cast<std::int64_t>(blocks), [&](std::int64_t i) {
    if (stopped) return;
    BlockRunner& runner = BlockRunner::here();
    std::string wrong = runner.run(launch, (first + static_cast<std::uint64_t>(i) * stride) % blocks, in_block);
    if (wrong.empty() && !launch.counted) return;
    const std::lock_guard lock(mutex);
    if (launch.counted) traffic += runner.take_traffic();
    if (!wrong.empty() && !stopped.exchange(true)) error = std::move(wrong);
  });
  if (launch.counted) last_traffic = traffic;
  return error;
}

}  // namespace

unsigned block_barrier(const Site& site, bool predicate) { return running->block->runner->barrier(site, predicate); }
void* const* warp_arrive(const Site& site, unsigned mask, void* operand) {
  return running->block->runner->arrive(site, mask, operand);
}
void warp_release(unsigned mask) { running->block->runner->release(mask); }
void count_access(const Site& site, const void* address, unsigned bytes) {
  running->block->runner->count(site, address, bytes);
}
void fail(const Site& site, const std::string& what) { running->block->runner->fail(site, what); }

Order order_of(const std::string& text) {
  if (text == "forward") return {};
  if (text == "reverse") return {Order::reverse, 0};
  char* end = nullptr;
  const std::uint64_t seed = std::strtoull(text.c_str(), &end, 10);
  base::expects(!text.empty() && text[0] != '-' && *end == '\0', "GRADKERN_SIMT_ORDER: forward, reverse or a seed");
  return {Order::shuffled, seed};
}

void set_order(const Order& order) {
  const std::lock_guard lock(order_mutex);
  current_order() = order;
}
Order order() {
  const std::lock_guard lock(order_mutex);
  return current_order();
}

void count(bool on) { counting = on; }
Traffic traffic() { return last_traffic; }
const char* last_error() { return last_error_text.c_str(); }

int run(Launch launch, const char* launcher) {
  launch.counted = counting;
  std::string error = refusal(launch);
  if (error.empty()) {
    try {
      error = run_blocks(launch);
    } catch (const std::exception& e) {
      error = e.what();
    }
  }
  if (error.empty()) return 0;
  last_error_text = std::string("launch by ") + launcher + ": " + error;
  return 1;
}

}  // namespace gradkern::simt
