#include "cpu/cpuid.hpp"

#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#endif

namespace gradkern::cpu {
namespace {

struct Registers {
  unsigned a = 0, b = 0, c = 0, d = 0;
};

Registers leaf(unsigned index) {
  Registers r;
  if (static_cast<unsigned>(__get_cpuid_max(0, nullptr)) >= index) __cpuid_count(index, 0, r.a, r.b, r.c, r.d);
  return r;
}

// The register state that the operating system saves (XCR0); 0 where it saves none.
unsigned saved_state() {
  if (!(leaf(1).c & bit_OSXSAVE)) return 0;
  unsigned low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

constexpr unsigned state_avx = 0x6, state_avx512 = 0xE6;

}  // namespace

bool has_avx2_fma() {
  constexpr unsigned needed = bit_FMA | bit_F16C;
  return (saved_state() & state_avx) == state_avx && (leaf(1).c & needed) == needed && (leaf(7).b & bit_AVX2);
}

bool has_avx512() {
  constexpr unsigned needed = bit_AVX512F | bit_AVX512VL | bit_AVX512DQ | bit_AVX512BW;
  return has_avx2_fma() && (saved_state() & state_avx512) == state_avx512 && (leaf(7).b & needed) == needed;
}

bool has_avx512fp16() {
  constexpr unsigned avx512_fp16 = 1u << 23;
  return has_avx512() && (leaf(7).d & avx512_fp16) == avx512_fp16;
}

bool has_avx512_bf16() {
  constexpr unsigned avx512_bf16 = 1u << 5;
  if (!has_avx512() || leaf(7).a < 1) return false;
  Registers r;
  __cpuid_count(7, 1, r.a, r.b, r.c, r.d);
  return (r.a & avx512_bf16) != 0;
}

bool has_avx512_vnni() {
  constexpr unsigned avx512_vnni = 1u << 11;
  return has_avx512() && (leaf(7).c & avx512_vnni) != 0;
}

// Linux saves tiles only for processes that have asked for them.
bool has_amx_bf16() {
#if defined(__linux__)
  static const bool granted = [] {
    constexpr unsigned amx_bf16 = 1u << 22, amx_tile = 1u << 24, both = amx_bf16 | amx_tile;
    constexpr unsigned state_tiles = 0x60000;
    constexpr long request_permission = 0x1023, tile_data = 18;
    return has_avx512() && (leaf(7).d & both) == both && (saved_state() & state_tiles) == state_tiles &&
           syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
  }();
  return granted;
#else
  return false;
#endif
}

bool is_amd() {
  const Registers r = leaf(0);
  return r.b == signature_AMD_ebx && r.c == signature_AMD_ecx && r.d == signature_AMD_edx;
}

bool halves_avx512() {
  constexpr unsigned zen3_and_4 = 0x19;
  const unsigned a = leaf(1).a, family = (a >> 8 & 0xF) + (a >> 20 & 0xFF);
  return is_amd() && family == zen3_and_4 && has_avx512_vnni();
}

}  // namespace gradkern::cpu

#else

namespace gradkern::cpu {
bool has_avx2_fma() { return false; }
bool has_avx512() { return false; }
bool has_avx512fp16() { return false; }
bool has_avx512_bf16() { return false; }
bool has_avx512_vnni() { return false; }
bool has_amx_bf16() { return false; }
bool is_amd() { return false; }
bool halves_avx512() { return false; }
}  // namespace gradkern::cpu

#endif

namespace gradkern::cpu {

long l2_bytes() {
  constexpr long usual = 1 << 20;
#if defined(_SC_LEVEL2_CACHE_SIZE)
  if (const long size = sysconf(_SC_LEVEL2_CACHE_SIZE); size > 0) return size;
#endif
  return usual;
}

}  // namespace gradkern::cpu
