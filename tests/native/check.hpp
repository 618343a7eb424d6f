// CHECK(condition, parts...): on failure prints where, what, and the parts; the test goes on, or ends there where
// GRADKERN_FAIL_FAST is set. main returns report().
#pragma once

#include <atomic>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <sstream>

namespace gradkern::test {

inline std::atomic<std::int64_t> checks{0}, failures{0};

template <class... Parts>
void fail(const char* file, int line, const char* condition, const Parts&... parts) {
  if (++failures > 20) return;
  std::ostringstream text;
  text << std::hexfloat << file << ':' << line << ": " << condition;
  ((text << ' ' << parts), ...);
  std::cerr << text.str() + '\n';
  if (std::getenv("GRADKERN_FAIL_FAST")) std::_Exit(1);
}

inline int report() {
  std::cerr << checks << " checks, " << failures << " failed\n";
  return failures || !checks;
}

// Equality of bits, NaN included.
inline bool same(double a, double b) { return std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b); }

}  // namespace gradkern::test

#define CHECK(condition, ...)                                                                            \
  do {                                                                                                   \
    ++::gradkern::test::checks;                                                                          \
    if (!(condition)) ::gradkern::test::fail(__FILE__, __LINE__, #condition __VA_OPT__(, ) __VA_ARGS__); \
  } while (false)
