// What is inside one fused step, for whoever explains it: finite operands.
#pragma once

#include "mma/model.hpp"

namespace gradkern::mma {

struct Trace {
  int common_exponent;
  std::int64_t terms[most_products + 1];  // in quanta of 2^(common_exponent - F), c the last
  int count;
  std::int64_t sum;
  std::uint32_t d;
};

inline Trace trace(const Instruction& instruction, const std::uint32_t* a, const std::uint32_t* b, int count,
                   std::uint32_t c) {
  const Step& step = instruction.step;
  Number terms[most_products + 1];
  for (int i = 0; i < count; ++i)
    terms[i] = Hardware::multiply(Hardware::decode(instruction.a, a[i]), Hardware::decode(instruction.b, b[i]));
  terms[count] = Hardware::decode(instruction.accumulate, c);
  Trace t{Hardware::common_exponent(step, terms, count + 1), {}, count + 1, 0, 0};
  for (int i = 0; i <= count; ++i) {
    t.terms[i] = Hardware::align(terms[i], t.common_exponent - step.fraction_bits);
    t.sum += t.terms[i];
  }
  t.d = fused_step(step, instruction.a, a, instruction.b, b, count, c);
  return t;
}

}  // namespace gradkern::mma
