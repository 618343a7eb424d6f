#include "simt/fiber.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#define GRADKERN_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define GRADKERN_ASAN 1
#endif
#endif
#if defined(GRADKERN_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

extern "C" __attribute__((visibility("hidden"))) void gradkern_switch_stack(void** save, void* load);

#if defined(__x86_64__)
asm(R"(
  .text
  .p2align 4
  .hidden gradkern_switch_stack
  .globl gradkern_switch_stack
  .type gradkern_switch_stack, @function
gradkern_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  popq %rcx
  jmpq *%rcx
  .size gradkern_switch_stack, . - gradkern_switch_stack
)");
#elif defined(__aarch64__)
asm(R"(
  .text
  .p2align 4
  .hidden gradkern_switch_stack
  .globl gradkern_switch_stack
  .type gradkern_switch_stack, %function
gradkern_switch_stack:
  sub sp, sp, #160
  stp x19, x20, [sp]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  br x30
  .size gradkern_switch_stack, . - gradkern_switch_stack
)");
#else
#error "simt: a stack switch for this processor is missing"
#endif

namespace gradkern::simt {
namespace {

#if defined(GRADKERN_ASAN)
constexpr std::size_t stack_size = 512 << 10;  // redzones make frames several times larger
#else
constexpr std::size_t stack_size = 128 << 10;
#endif

std::size_t page_size() { return static_cast<std::size_t>(sysconf(_SC_PAGESIZE)); }

}  // namespace

Fiber::Fiber(Entry entry) : entry_(entry), size_(stack_size) {
  const std::size_t guard = page_size();
  void* mapped = mmap(nullptr, guard + stack_size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  memory_ = static_cast<std::byte*>(mapped);
  mprotect(memory_, guard, PROT_NONE);
  bottom_ = memory_ + guard;
  restart();
}

Fiber::~Fiber() {
#if defined(GRADKERN_ASAN)
  if (memory_) __asan_unpoison_memory_region(bottom_, size_);
#endif
  if (memory_) munmap(memory_, page_size() + stack_size);
}

void Fiber::restart() {
#if defined(GRADKERN_ASAN)
  __asan_unpoison_memory_region(bottom_, size_);  // frames that were left and never returned from
  fake_stack_ = nullptr;
#endif
  auto* top = reinterpret_cast<void**>(memory_ + page_size() + stack_size);
#if defined(__x86_64__)
  void** frame = top - 8;  // six registers, the entry, and a null return address where a caller's would lie
  for (int i = 0; i < 8; ++i) frame[i] = nullptr;
  frame[6] = reinterpret_cast<void*>(entry_);
#else
  void** frame = top - 20;
  for (int i = 0; i < 20; ++i) frame[i] = nullptr;
  frame[11] = reinterpret_cast<void*>(entry_);
#endif
  stack_pointer_ = frame;
}

#if defined(GRADKERN_ASAN)
// AddressSanitizer is told of every switch, before it and after.
namespace {
thread_local Fiber *previous = nullptr, *current = nullptr;
}  // namespace

void Fiber::go(Fiber& from, Fiber& to) {
  previous = &from;
  current = &to;
  __sanitizer_start_switch_fiber(&from.fake_stack_, to.bottom_, to.size_);
  gradkern_switch_stack(&from.stack_pointer_, to.stack_pointer_);
  arrived();
}

void Fiber::arrived() {
  const void* bottom = nullptr;
  std::size_t size = 0;
  __sanitizer_finish_switch_fiber(current->fake_stack_, &bottom, &size);
  if (!previous->memory_) {  // only now is it known where the system's own stack lies
    previous->bottom_ = bottom;
    previous->size_ = size;
  }
}
#else
void Fiber::go(Fiber& from, Fiber& to) { gradkern_switch_stack(&from.stack_pointer_, to.stack_pointer_); }
void Fiber::arrived() {}
#endif

}  // namespace gradkern::simt
