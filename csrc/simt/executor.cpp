#include "simt/executor.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <numeric>

#include "base/thread_pool.hpp"

namespace gradkern::simt {

constinit thread_local Thread* running = nullptr;

namespace {

std::string text_of(const uint3& v) {
  return std::string("(").append(std::to_string(v.x)) + ", " + std::to_string(v.y) + ", " + std::to_string(v.z) + ")";
}

std::string text_of(const Site& site) {
  return std::string(site.operation) + " of " + site.function + " (" + site.file + ":" + std::to_string(site.line) +
         ")";
}

bool same_place(const Site& a, const Site& b) {
  return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

uint3 unravel(std::uint64_t linear, const dim3& size) {
  return {static_cast<unsigned>(linear % size.x), static_cast<unsigned>(linear / size.x % size.y),
          static_cast<unsigned>(linear / size.x / size.y)};
}

std::uint64_t next_random(std::uint64_t& state) {  // SplitMix64
  std::uint64_t z = state += 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

struct BlockOrder {
  std::vector<unsigned> threads;
  unsigned lane_flip;  // lanes wake in the order 0 ^ flip, 1 ^ flip, ...
};

// Everything that one thread of the operating system needs to run blocks, kept from launch to launch.
class Executor {
 public:
  // Empty, or what went wrong.
  std::string run_block(const Launch& launch, std::uint64_t linear, const BlockOrder& order);

  bool busy() const { return running != nullptr; }
  void block_here(const Site& site);
  unsigned barrier(const Site& site, bool predicate);
  void* const* arrive(const Site& site, unsigned mask, void* operand);
  void release(unsigned mask);
  [[noreturn]] void fail(const std::string& what);

 private:
  static void entry();

  void prepare(const Launch& launch, std::uint64_t linear);
  void run_thread(Thread& thread);
  void ended(Thread& thread);
  Thread* next();
  void switch_to(Thread& thread, Fiber& from);
  Fiber* take_fiber();
  void stop(Fiber& from);
  void release_barrier();
  std::string deadlock() const;

  Block block_{};
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  const BlockOrder* order_ = nullptr;

  std::vector<Thread*> queue_;  // a ring: threads that can run
  std::size_t head_ = 0, queued_ = 0;
  unsigned alive_ = 0, at_barrier_ = 0, predicates_ = 0, barrier_result_ = 0;
  const Thread* ended_ = nullptr;  // one that returned
  const Thread* barrier_first_ = nullptr;

  Fiber host_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> free_;
  Fiber* current_ = nullptr;
  std::string error_;

  std::unique_ptr<std::byte, void (*)(void*)> dynamic_{nullptr, std::free};
  std::size_t dynamic_bytes_ = 0;

  void push(Thread& thread) {
    queue_[(head_ + queued_++) % queue_.size()] = &thread;
    thread.waits.operation = nullptr;
  }
};

thread_local Executor executor;

void Executor::prepare(const Launch& launch, std::uint64_t linear) {
  const unsigned count = launch.size.x * launch.size.y * launch.size.z;
  block_.launch = &launch;
  block_.index = unravel(linear, launch.grid);
  if (dynamic_bytes_ != launch.dynamic_bytes || !dynamic_) {
    void* bytes = nullptr;  // exactly as many as asked for: AddressSanitizer sees one more
    if (launch.dynamic_bytes && posix_memalign(&bytes, 128, launch.dynamic_bytes) != 0) throw std::bad_alloc();
    dynamic_.reset(static_cast<std::byte*>(bytes));
    dynamic_bytes_ = launch.dynamic_bytes;
  }
  if (dynamic_bytes_) std::memset(dynamic_.get(), 0xFF, dynamic_bytes_);
  block_.dynamic_shared = dynamic_.get();

  if (threads_.size() < count) threads_.resize(count);
  queue_.resize(count);
  head_ = queued_ = 0;
  warps_.assign((count + warp_size - 1) / warp_size, Warp{});
  for (unsigned t : order_->threads) {
    Thread& thread = threads_[t];
    thread.index = unravel(t, launch.size);
    thread.linear = t;
    thread.lane = t % warp_size;
    thread.block = &block_;
    thread.warp = &warps_[t / warp_size];
    thread.warp->alive |= 1u << thread.lane;
    thread.fiber = nullptr;
    thread.ended = false;
    thread.copy_group = 0;
    thread.copies.clear();
    push(thread);
  }
  alive_ = count;
  at_barrier_ = predicates_ = 0;
  ended_ = nullptr;
  error_.clear();
}

std::string Executor::run_block(const Launch& launch, std::uint64_t linear, const BlockOrder& order) {
  order_ = &order;
  prepare(launch, linear);
  switch_to(*next(), host_);
  running = nullptr;
  if (alive_ && error_.empty()) error_ = deadlock();
  if (!error_.empty()) {  // threads were left in the middle
    free_.clear();
    for (auto& fiber : fibers_) {
      fiber->restart();
      free_.push_back(fiber.get());
    }
  }
  return error_;
}

Fiber* Executor::take_fiber() {
  if (free_.empty()) {
    fibers_.push_back(std::make_unique<Fiber>(&Executor::entry));
    return fibers_.back().get();
  }
  Fiber* fiber = free_.back();
  free_.pop_back();
  return fiber;
}

Thread* Executor::next() {
  if (queued_ == 0) return nullptr;
  Thread* thread = queue_[head_];
  head_ = head_ + 1 == queue_.size() ? 0 : head_ + 1;
  --queued_;
  return thread;
}

void Executor::switch_to(Thread& thread, Fiber& from) {
  if (!thread.fiber) thread.fiber = take_fiber();
  running = &thread;
  current_ = thread.fiber;
  Fiber::go(from, *thread.fiber);
}

void Executor::stop(Fiber& from) {
  running = nullptr;
  Fiber::go(from, host_);
}

// What every fiber does: run one thread to its end, then the next that has not started, on the same stack. So a kernel
// that never waits needs one fiber and no switch.
void Executor::entry() {
  Fiber::arrived();
  Executor& self = executor;
  for (;;) {
    Thread& thread = *running;
    self.run_thread(thread);
    Fiber& mine = *thread.fiber;
    Thread* next = self.error_.empty() ? self.next() : nullptr;
    if (next && !next->fiber) {
      next->fiber = &mine;
      running = next;
      continue;
    }
    self.free_.push_back(&mine);
    if (next) {
      self.switch_to(*next, mine);
    } else {
      self.stop(mine);
    }
  }
}

void Executor::run_thread(Thread& thread) {
  try {
    thread.block->launch->body();
  } catch (const std::exception& e) {
    error_ = std::string("block ") + text_of(block_.index) + ", thread " + text_of(thread.index) + ": " + e.what();
  }
  ended(thread);
}

void Executor::ended(Thread& thread) {
  thread.ended = true;
  ended_ = &thread;
  --alive_;
  Warp& warp = *thread.warp;
  warp.alive &= ~(1u << thread.lane);
  for (unsigned waiting = warp.arrived; waiting; waiting &= waiting - 1) {
    const unsigned lane = static_cast<unsigned>(std::countr_zero(waiting));
    if (!(warp.masks[lane] >> thread.lane & 1)) continue;
    const Thread& other = threads_[thread.linear - thread.lane + lane];
    error_ = "block " + text_of(block_.index) + ": thread " + text_of(thread.index) + " returned, but thread " +
             text_of(other.index) + " waits for it in " + text_of(other.waits);
    return;
  }
}

// The running thread waits, and returns from here when it is woken.
void Executor::block_here(const Site& site) {
  Thread& thread = *running;
  thread.waits = site;
  Fiber& mine = *thread.fiber;
  if (Thread* other = next()) {
    switch_to(*other, mine);
  } else {
    stop(mine);
  }
}

void Executor::fail(const std::string& what) {
  error_ = what;
  for (;;) stop(*running->fiber);
}

unsigned Executor::barrier(const Site& site, bool predicate) {
  Thread& thread = *running;
  if (at_barrier_ == 0) {
    barrier_first_ = &thread;
  } else if (!same_place(barrier_first_->waits, site)) {
    simt::fail(site, "divergent barrier: thread " + text_of(barrier_first_->index) + " waits in " +
                         text_of(barrier_first_->waits));
  }
  predicates_ += predicate;
  if (++at_barrier_ < alive_ || ended_) {  // a thread that returned will never arrive
    block_here(site);
    return barrier_result_;
  }
  barrier_result_ = predicates_;
  at_barrier_ = predicates_ = 0;
  for (unsigned t : order_->threads) {
    if (t != thread.linear) push(threads_[t]);
  }
  return barrier_result_;
}

void* const* Executor::arrive(const Site& site, unsigned mask, void* operand) {
  Thread& thread = *running;
  Warp& warp = *thread.warp;
  const auto lanes_text = [](unsigned lanes) {
    char text[16];
    std::snprintf(text, sizeof text, "0x%08x", lanes);
    return std::string(text);
  };
  if (!(mask >> thread.lane & 1)) simt::fail(site, "mask " + lanes_text(mask) + " lacks the calling lane");
  if (mask & ~warp.alive) {
    simt::fail(site, "mask " + lanes_text(mask) +
                         " names lanes that returned or never were: " + lanes_text(mask & ~warp.alive));
  }
  warp.masks[thread.lane] = mask;
  warp.operands[thread.lane] = operand;
  warp.arrived |= 1u << thread.lane;
  if ((warp.arrived & mask) != mask) {
    block_here(site);
    return nullptr;
  }
  for (unsigned rest = mask & ~(1u << thread.lane); rest; rest &= rest - 1) {
    const unsigned lane = static_cast<unsigned>(std::countr_zero(rest));
    const Thread& other = threads_[thread.linear - thread.lane + lane];
    if (warp.masks[lane] != mask || !same_place(other.waits, site)) {
      simt::fail(site, "mask " + lanes_text(mask) + " names thread " + text_of(other.index) + ", which waits in " +
                           text_of(other.waits) + " with mask " + lanes_text(warp.masks[lane]));
    }
  }
  return warp.operands;
}

void Executor::release(unsigned mask) {
  Thread& thread = *running;
  thread.warp->arrived &= ~mask;
  const unsigned first = thread.linear - thread.lane;
  for (unsigned i = 0; i < warp_size; ++i) {
    const unsigned lane = i ^ order_->lane_flip;
    if (lane != thread.lane && mask >> lane & 1) push(threads_[first + lane]);
  }
}

std::string Executor::deadlock() const {
  std::string text = "deadlock in block " + text_of(block_.index) + ":";
  std::vector<const Thread*> seen;
  for (unsigned t = 0; t < order_->threads.size(); ++t) {
    const Thread& thread = threads_[t];
    if (thread.ended) continue;
    const auto same = [&](const Thread* s) { return same_place(s->waits, thread.waits); };
    if (std::none_of(seen.begin(), seen.end(), same)) seen.push_back(&thread);
  }
  for (const Thread* thread : seen) {
    text += " thread " + text_of(thread->index) + " waits in " + text_of(thread->waits) + ";";
  }
  if (ended_) {
    text += " thread " + text_of(ended_->index) + " returned";
  } else {
    text.pop_back();
  }
  return text;
}

Order initial_order() {
  const char* text = std::getenv("GRADKERN_SIMT_ORDER");
  if (!text || std::strcmp(text, "forward") == 0) return {};
  if (std::strcmp(text, "reverse") == 0) return {Order::reverse, 0};
  return {Order::shuffled, std::strtoull(text, nullptr, 10)};
}

std::mutex order_mutex;
Order& current_order() {
  static Order order = initial_order();
  return order;
}

BlockOrder block_order(unsigned count, Order how) {
  BlockOrder order{std::vector<unsigned>(count), 0};
  std::iota(order.threads.begin(), order.threads.end(), 0u);
  if (how.kind == Order::reverse) {
    std::reverse(order.threads.begin(), order.threads.end());
    order.lane_flip = warp_size - 1;
  }
  if (how.kind == Order::shuffled) {
    for (unsigned i = count; i > 1; --i) std::swap(order.threads[i - 1], order.threads[next_random(how.seed) % i]);
    order.lane_flip = next_random(how.seed) % warp_size;
  }
  return order;
}

thread_local std::string error_text;

int failed(std::string text) {
  error_text = std::move(text);
  return 1;
}

}  // namespace

unsigned block_barrier(const Site& site, bool predicate) { return executor.barrier(site, predicate); }
void* const* warp_arrive(const Site& site, unsigned mask, void* operand) {
  return executor.arrive(site, mask, operand);
}
void warp_release(unsigned mask) { executor.release(mask); }

void fail(const Site& site, const std::string& what) {
  executor.fail("block " + text_of(running->block->index) + ", thread " + text_of(running->index) + ", " +
                text_of(site) + ": " + what);
}

void set_order(Order order) {
  const std::lock_guard lock(order_mutex);
  current_order() = order;
}
Order order() {
  const std::lock_guard lock(order_mutex);
  return current_order();
}

const char* last_error() { return error_text.c_str(); }

int run(const Launch& launch, const char* launcher) {
  const std::string name = std::string("launch by ") + launcher + ": ";
  const std::uint64_t count = std::uint64_t(launch.size.x) * launch.size.y * launch.size.z;
  const std::uint64_t blocks = std::uint64_t(launch.grid.x) * launch.grid.y * launch.grid.z;
  if (executor.busy()) return failed(name + "from inside a kernel");
  if (count < 1 || count > 1024) return failed(name + "a block has 1 to 1024 threads, got " + std::to_string(count));
  if (launch.size.z > 64) return failed(name + "a block has at most 64 threads in z");
  if (launch.grid.y > 65535 || launch.grid.z > 65535)
    return failed(name + "a grid has at most 65535 blocks in y and z");
  if (blocks < 1 || blocks > 0x7FFFFFFFu) return failed(name + "a grid has 1 to 2147483647 blocks here");
  if (launch.dynamic_bytes > 227 << 10) return failed(name + "more than 227 KiB of dynamic shared memory");

  const Order how = order();
  const BlockOrder in_block = block_order(static_cast<unsigned>(count), how);
  std::uint64_t stride =
      1;  // blocks by an odd stride: a permutation where it has no divisor in common with their number
  if (how.kind == Order::shuffled) {
    std::uint64_t state = how.seed;
    do stride = next_random(state) % blocks;
    while (std::gcd(stride, blocks) != 1);
  }
  std::mutex mutex;
  std::string error;
  std::atomic<bool> stopped{false};
  const auto run_one = [&](std::int64_t i) {
    if (stopped) return;
    const auto u = static_cast<std::uint64_t>(i);
    const std::uint64_t linear = how.kind == Order::reverse ? blocks - 1 - u : u * stride % blocks;
    std::string text = executor.run_block(launch, linear, in_block);
    if (text.empty()) return;
    const std::lock_guard lock(mutex);
    if (!stopped.exchange(true)) error = std::move(text);
  };
  try {
    base::parallel_for(static_cast<std::int64_t>(blocks), run_one);
  } catch (const std::exception& e) {
    error = e.what();
  }
  return error.empty() ? 0 : failed(name + error);
}

}  // namespace gradkern::simt
