// Runs blocks, one after another, on one thread of the operating system. Kept from launch to launch, for its fibers.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "simt/executor.hpp"
#include "simt/fiber.hpp"
#include "simt/traffic.hpp"

namespace gradkern::simt {

// In which order the threads of a block start, and the lanes of a warp wake: 0 ^ flip, 1 ^ flip, ... warps_run_on: a
// warp whose collective is done goes on before all others, so that it is ahead of them by as much as barriers let it be;
// else it queues behind them, and the warps of a block keep step.
struct BlockOrder {
  std::vector<unsigned> threads;
  unsigned lane_flip;
  bool warps_run_on;
};

class BlockRunner {
 public:
  static BlockRunner& here();  // of this thread of the operating system

  // Empty, or what went wrong.
  std::string run(const Launch& launch, std::uint64_t linear, const BlockOrder& order);
  Traffic take_traffic() { return requests_.take(dynamic_.get(), dynamic_bytes_); }

  // For the running thread:
  unsigned barrier(const Site& site, bool predicate);
  void* const* arrive(const Site& site, unsigned mask, void* operand);
  void release(unsigned mask);
  void count(const Site& site, const void* address, unsigned bytes);
  [[noreturn]] void fail(const Site& site, const std::string& what);

 private:
  static void entry();

  void prepare(const Launch& launch, std::uint64_t linear);
  void prepare_shared(std::size_t bytes);
  void run_thread(Thread& thread);
  void end(Thread& thread);
  void push(Thread& thread);
  void push_first(Thread& thread);
  Thread* next();
  void switch_to(Thread& thread, Fiber& from);
  void wait(const Site& site);
  void stop(Fiber& from);
  Fiber* take_fiber();
  void restart_fibers();
  std::string deadlock() const;
  Thread& lane_of(const Thread& thread, unsigned lane) { return threads_[thread.linear - thread.lane + lane]; }

  Block block_{};
  const BlockOrder* order_ = nullptr;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;

  std::vector<Thread*> queue_;  // a ring of those that can run
  std::size_t head_ = 0, queued_ = 0;
  unsigned alive_ = 0;
  unsigned at_barrier_ = 0, predicates_ = 0, barrier_result_ = 0;
  const Thread* barrier_first_ = nullptr;  // who arrived first
  const Thread* returned_ = nullptr;       // one that has ended
  std::string error_;

  Fiber host_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> free_;

  std::unique_ptr<std::byte, void (*)(void*)> dynamic_{nullptr, std::free};
  std::size_t dynamic_bytes_ = 0;
  Requests requests_;
};

}  // namespace gradkern::simt
