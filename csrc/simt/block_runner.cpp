#include "simt/block_runner.hpp"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>

namespace gradkern::simt {

constinit thread_local Thread* running = nullptr;

namespace {

struct Failure {
  std::string text;
};

std::string text_of(const uint3& v) {
  return std::string("(").append(std::to_string(v.x)) + ", " + std::to_string(v.y) + ", " + std::to_string(v.z) + ")";
}

std::string text_of(const Site& site) {
  return std::string(site.operation) + " of " + site.function + " (" + site.file + ":" + std::to_string(site.line) +
         ")";
}

std::string text_of(unsigned mask) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", mask);
  return text;
}

bool same_place(const Site& a, const Site& b) {
  return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0) &&
         (a.operation == b.operation || std::strcmp(a.operation, b.operation) == 0);
}

uint3 unravel(std::uint64_t linear, const dim3& size) {
  return {static_cast<unsigned>(linear % size.x), static_cast<unsigned>(linear / size.x % size.y),
          static_cast<unsigned>(linear / size.x / size.y)};
}

template <class Visit>
void for_lanes(unsigned mask, Visit visit) {
  for (; mask; mask &= mask - 1) visit(static_cast<unsigned>(std::countr_zero(mask)));
}

}  // namespace

BlockRunner& BlockRunner::here() {
  static thread_local BlockRunner runner;
  return runner;
}

void BlockRunner::prepare_shared(std::size_t bytes) {
  if (dynamic_bytes_ != bytes) {
    void* memory = nullptr;  // exactly as much as asked for: AddressSanitizer sees one byte more
    if (bytes && posix_memalign(&memory, 128, bytes) != 0) throw std::bad_alloc();
    dynamic_.reset(static_cast<std::byte*>(memory));
    dynamic_bytes_ = bytes;
  }
  if (bytes) std::memset(dynamic_.get(), 0xFF, bytes);  // NaN in every format
}

void BlockRunner::prepare(const Launch& launch, std::uint64_t linear) {
  prepare_shared(launch.dynamic_bytes);
  block_ = {this, &launch, unravel(linear, launch.grid), dynamic_.get()};
  alive_ = static_cast<unsigned>(order_->threads.size());
  at_barrier_ = predicates_ = 0;
  returned_ = nullptr;
  error_.clear();

  if (threads_.size() < alive_) threads_.resize(alive_);
  warps_.assign((alive_ + warp_size - 1) / warp_size, Warp{});
  queue_.resize(alive_);
  head_ = queued_ = 0;
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
}

std::string BlockRunner::run(const Launch& launch, std::uint64_t linear, const BlockOrder& order) {
  order_ = &order;
  prepare(launch, linear);
  switch_to(*next(), host_);
  if (alive_ && error_.empty()) error_ = deadlock();
  if (!error_.empty()) restart_fibers();
  return error_;
}

Fiber* BlockRunner::take_fiber() {
  if (free_.empty()) {
    fibers_.push_back(std::make_unique<Fiber>(&BlockRunner::entry));
    return fibers_.back().get();
  }
  Fiber* fiber = free_.back();
  free_.pop_back();
  return fiber;
}

void BlockRunner::restart_fibers() {  // threads were left in the middle
  free_.clear();
  for (auto& fiber : fibers_) {
    fiber->restart();
    free_.push_back(fiber.get());
  }
}

void BlockRunner::push(Thread& thread) {
  std::size_t tail = head_ + queued_++;
  if (tail >= queue_.size()) tail -= queue_.size();
  queue_[tail] = &thread;
}

void BlockRunner::push_first(Thread& thread) {
  head_ = (head_ == 0 ? queue_.size() : head_) - 1;
  queue_[head_] = &thread;
  ++queued_;
}

Thread* BlockRunner::next() {
  if (queued_ == 0) return nullptr;
  Thread* thread = queue_[head_];
  head_ = head_ + 1 == queue_.size() ? 0 : head_ + 1;
  --queued_;
  return thread;
}

void BlockRunner::switch_to(Thread& thread, Fiber& from) {
  if (!thread.fiber) thread.fiber = take_fiber();
  running = &thread;
  Fiber::go(from, *thread.fiber);
}

void BlockRunner::stop(Fiber& from) {
  running = nullptr;
  Fiber::go(from, host_);
}

// What every fiber does: run a thread to its end, then the next that has not started, on the same stack. So a kernel
// that never waits needs one fiber and no switch.
void BlockRunner::entry() {
  Fiber::arrived();
  BlockRunner& self = *running->block->runner;
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

void BlockRunner::run_thread(Thread& thread) {
  try {
    block_.launch->body();
  } catch (const Failure& failure) {
    error_ = "block " + text_of(block_.index) + ", thread " + failure.text;
  } catch (const std::exception& e) {
    error_ = "block " + text_of(block_.index) + ", thread " + text_of(thread.index) + ": " + e.what();
  }
  end(thread);
}

void BlockRunner::end(Thread& thread) {
  thread.ended = true;
  returned_ = &thread;
  --alive_;
  Warp& warp = *thread.warp;
  warp.alive &= ~(1u << thread.lane);
  for_lanes(warp.arrived, [&](unsigned lane) {
    if (!(warp.masks[lane] >> thread.lane & 1) || !error_.empty()) return;
    const Thread& other = lane_of(thread, lane);
    error_ = "block " + text_of(block_.index) + ": thread " + text_of(thread.index) + " returned, but thread " +
             text_of(other.index) + " waits for it in " + text_of(other.waits);
  });
}

// The running thread waits; it comes back from here when it was pushed and its turn has come.
void BlockRunner::wait(const Site& site) {
  Thread& thread = *running;
  thread.waits = site;
  if (Thread* other = next()) {
    switch_to(*other, *thread.fiber);
  } else {
    stop(*thread.fiber);
  }
}

// Unwinds the thread to run_thread; the others are left where they wait.
void BlockRunner::fail(const Site& site, const std::string& what) {
  throw Failure{text_of(running->index) + ", " + text_of(site) + ": " + what};
}

unsigned BlockRunner::barrier(const Site& site, bool predicate) {
  Thread& thread = *running;
  if (at_barrier_ == 0) {
    barrier_first_ = &thread;
  } else if (!same_place(barrier_first_->waits, site)) {
    fail(site,
         "divergent barrier: thread " + text_of(barrier_first_->index) + " waits in " + text_of(barrier_first_->waits));
  }
  predicates_ += predicate;
  if (++at_barrier_ < alive_ || returned_) {  // a thread that returned will never arrive
    wait(site);
    return barrier_result_;
  }
  barrier_result_ = predicates_;
  at_barrier_ = predicates_ = 0;
  for (unsigned t : order_->threads) {
    if (t != thread.linear) push(threads_[t]);
  }
  return barrier_result_;
}

void* const* BlockRunner::arrive(const Site& site, unsigned mask, void* operand) {
  Thread& thread = *running;
  Warp& warp = *thread.warp;
  if (!(mask >> thread.lane & 1)) fail(site, "mask " + text_of(mask) + " lacks the calling lane");
  if (const unsigned absent = mask & ~warp.alive) {
    fail(site, "mask " + text_of(mask) + " names lanes that returned or never were: " + text_of(absent));
  }
  warp.masks[thread.lane] = mask;
  warp.operands[thread.lane] = operand;
  warp.arrived |= 1u << thread.lane;
  if ((warp.arrived & mask) != mask) {
    wait(site);
    return nullptr;
  }
  for_lanes(mask & ~(1u << thread.lane), [&](unsigned lane) {
    const Thread& other = lane_of(thread, lane);
    if (warp.masks[lane] == mask && same_place(other.waits, site)) return;
    fail(site, "divergent warp: mask " + text_of(mask) + " names thread " + text_of(other.index) + ", which waits in " +
                   text_of(other.waits) + " with mask " + text_of(warp.masks[lane]));
  });
  return warp.operands;
}

void BlockRunner::release(unsigned mask) {
  Thread& thread = *running;
  thread.warp->arrived &= ~mask;
  const bool first = order_->warps_run_on;  // then what is pushed last runs first
  for (unsigned i = 0; i < warp_size; ++i) {
    const unsigned lane = (first ? warp_size - 1 - i : i) ^ order_->lane_flip;
    if (lane == thread.lane || !(mask >> lane & 1)) continue;
    first ? push_first(lane_of(thread, lane)) : push(lane_of(thread, lane));
  }
}

void BlockRunner::count(const Site& site, const void* address, unsigned bytes) {
  requests_.add(site, running->linear / warp_size, running->lane, address, bytes);
}

std::string BlockRunner::deadlock() const {
  std::string text = "deadlock in block " + text_of(block_.index) + ":";
  std::vector<const Thread*> places;  // one thread for each place where any waits
  for (unsigned t = 0; t < order_->threads.size(); ++t) {
    const Thread& thread = threads_[t];
    const auto same = [&](const Thread* other) { return same_place(other->waits, thread.waits); };
    if (thread.ended || std::any_of(places.begin(), places.end(), same)) continue;
    text += (places.empty() ? " thread " : ", thread ") + text_of(thread.index) + " waits in " + text_of(thread.waits);
    places.push_back(&thread);
  }
  return returned_ ? text + ", thread " + text_of(returned_->index) + " returned" : text;
}

}  // namespace gradkern::simt
