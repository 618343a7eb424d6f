// A product on a matrix unit, made ready for the instruction set's loop: which lanes hold its exponents, and which
// outputs have an infinite or NaN operand. Those are the scalar model's.
#pragma once

#include <vector>

#include "cpu/kernels.hpp"

namespace gradkern::cpu {

// The instruction of a product on a unit. Throws std::invalid_argument where there is none.
mma::Instruction unit_instruction(const executor::ProductArgs& args);

// run(block) for the blocks of k that torch cuts a sum into, one after another; for other units, of the whole.
template <class Product, class Run>
void in_blocks(const Product& whole, const mma::Instruction& instruction, Run run) {
  if (instruction.form != mma::Form::amx || instruction.k == 32 || whole.k == 0) return run(whole);
  for (std::int64_t k = 0; k < whole.k; k += instruction.k) {
    Product block = whole;
    block.a += k * whole.a_step;
    block.b += k * whole.b_step;
    block.k = whole.k - k < instruction.k ? whole.k - k : instruction.k;
    block.continued = k > 0 || whole.continued;
    if (k + block.k < whole.k) block.bias = nullptr;
    run(block);
  }
}

class UnitPlan {
 public:
  // a, b and bias: the operands' values as they lie, rounded to what the unit takes.
  UnitPlan(const executor::ProductArgs& args, const float* a, const float* b, const float* bias);

  // Any range, on any thread; scratch: mma_scratch bytes.
  void run(const Kernels& kernels, const ProductRange& range, char* scratch) const;

 private:
  enum class Kind : std::uint8_t { finite, infinite, nan };  // the worst entry of a row of a, or of a column of b

  struct Fix {
    std::int64_t at;
    float value;
  };

  void survey_exponents(const executor::ProductArgs& args);
  void set_aside(const executor::ProductArgs& args);
  float model(const std::vector<std::uint32_t>& row, std::int64_t i, std::int64_t j) const;
  void run_model(const ProductRange& range) const;
  std::vector<Fix> fixes(const ProductRange& range) const;

  UnitProduct product_;
  const float *a_, *b_;               // with what is not finite
  std::vector<Kind> rows_, columns_;  // empty where all is finite
  std::vector<float> finite_a_, finite_b_;
};

}  // namespace gradkern::cpu
