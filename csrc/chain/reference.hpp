// The reference chain: the float64 kernels with a power-of-two exponent per tensor, renormalised when its largest
// magnitude leaves [2^-200, 2^200]. In a net of ordinary size every exponent stays 0 and this is the float64 chain.
#pragma once

#include "chain/tensor.hpp"

namespace gradkern::chain {

struct Matrix {  // a float64 matrix, possibly transposed by its strides
  const double* data;
  std::int64_t row_stride, column_stride;
};

// a (m, k) times b (k, n); the exponent of the result is `exponent`, then renormalised.
Reference reference_product(const Executor&, const Matrix& a, const Matrix& b, std::int64_t m, std::int64_t n,
                            std::int64_t k, std::int64_t exponent);

// z = h W^T + b.
Reference reference_dense(const Executor&, const Reference& h, const std::vector<double>& weight,
                          const std::vector<double>& bias, std::int64_t batch, std::int64_t n_out, std::int64_t n_in);

// z + b for each row of z; nothing for an empty bias.
void add_bias(Reference& z, const std::vector<double>& bias);

Reference reference_activation(const Executor&, const Reference& z, ops::ActivationId activation, double alpha);

// dz = dh * phi'(z).
Reference reference_activation_backward(const Executor&, const Reference& dh, const Reference& z,
                                        ops::ActivationId activation, double alpha);

// total + part, each with its exponent.
void add(Reference& total, const Reference& part);

void renormalise(Reference& tensor);

}  // namespace gradkern::chain
