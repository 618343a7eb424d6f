// A stack of its own for every CUDA thread, and the switch between two of them: a dozen instructions that save what a
// call must preserve, ending in an indirect jump (a return would miss the processor's predictor).
#pragma once

#include <cstddef>

namespace gradkern::simt {

class Fiber {
 public:
  using Entry = void (*)();  // never returns

  Fiber() = default;
  explicit Fiber(Entry entry);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  void restart();  // forget what runs there: the next switch enters Entry
  static void go(Fiber& from, Fiber& to);
  static void arrived();  // the first thing in Entry

 private:
  Entry entry_ = nullptr;
  void* stack_pointer_ = nullptr;
  std::byte* memory_ = nullptr;  // a guard page, then the stack; null for the stack that the operating system made
  [[maybe_unused]] const void* bottom_ = nullptr;  // these three are for AddressSanitizer
  [[maybe_unused]] std::size_t size_ = 0;
  [[maybe_unused]] void* fake_stack_ = nullptr;
};

}  // namespace gradkern::simt
