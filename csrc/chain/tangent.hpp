// Tangents through a chain, without its Jacobian: vectors times the factors diag(f'(z_l)) W_l forwards (J v), times their
// transposes backwards (J^T u), made orthonormal after each layer. What that takes from a block of vectors is the small
// triangular factor of the layer, so that nothing overflows at any depth: A_l Q_{l-1} = Q_l R_l.
//
// Vectors lie one after the other. Sums run over 16 lanes in float64, as in ops/matvec.hpp.
#pragma once

#include <functional>
#include <vector>

#include "chain/run.hpp"

namespace gradkern::chain {

struct Factor {  // diag(slope) W
  std::int64_t n_out, n_in;
  Source weight;
  const double* slope;  // (n_out,)
};

// Called between layers; an exception from it ends the pass.
using Tick = std::function<void()>;

class Tangent {
 public:
  Tangent(const Executor& executor, std::vector<Factor> factors);

  std::int64_t depth() const { return static_cast<std::int64_t>(factors_.size()); }
  std::int64_t n_in() const { return factors_.front().n_in; }
  std::int64_t n_out() const { return factors_.back().n_out; }

  // Replaces `count` vectors by their orthonormal images; triangles: (depth, count, count), in the order of the pass. A
  // vector that lies in the span of those before it to within rounding becomes zero, and so does its row of the triangle.
  void forward(std::vector<double>& vectors, std::int64_t count, double* triangles, const Tick& tick) const;
  void backward(std::vector<double>& vectors, std::int64_t count, double* triangles, const Tick& tick) const;

 private:
  void apply(const Factor& factor, bool transposed, std::int64_t count, std::vector<double>& vectors) const;

  const Executor& executor_;
  std::vector<Factor> factors_;
};

// f'(z_l) at one input x, layer after layer, with exponents beside z_l: no depth overflows.
std::vector<Values> slopes(const Executor&, const std::vector<Layer>&, Values x, const Tick& tick);

}  // namespace gradkern::chain
