// The reference chain: the float64 kernels with a power-of-two exponent per tensor, renormalised when its largest
// magnitude leaves [2^-200, 2^200]. In a net of ordinary size every exponent stays 0 and this is the float64 chain.
#pragma once

#include "chain/tensor.hpp"

namespace gradkern::chain {

// a (m, k) times b (k, n), exactly as they are in whatever format; the exponent of the result is `exponent`, then
// renormalised.
struct ReferenceProduct {
  Reference* result;
  executor::Operand a, b;
  std::int64_t m, n, k, exponent;
};
void reference_products(const Executor&, const std::vector<ReferenceProduct>& list);
Reference reference_product(const Executor&, const executor::Operand& a, const executor::Operand& b, std::int64_t m,
                            std::int64_t n, std::int64_t k, std::int64_t exponent);

// The operand that a reference is, of rows as long as `columns`, or its transpose.
inline executor::Operand rows_of(const Reference& r, std::int64_t columns) {
  return {FormatId::float64, r.values.data(), columns, 1};
}
inline executor::Operand columns_of(const Reference& r, std::int64_t columns) {
  return {FormatId::float64, r.values.data(), 1, columns};
}

// z = h W^T + b.
Reference reference_dense(const Executor&, const Reference& h, const Source& weight, const Source& bias,
                          std::int64_t batch, std::int64_t n_out, std::int64_t n_in);

// z + b for each row of z; nothing for an empty bias.
void add_bias(Reference& z, const Values& bias);

Reference reference_activation(const Executor&, const Reference& z, ops::ActivationId activation, double alpha);

// dz = dh * phi'(z).
Reference reference_activation_backward(const Executor&, const Reference& dh, const Reference& z,
                                        ops::ActivationId activation, double alpha);

// total + part, each with its exponent.
void add(Reference& total, const Reference& part);

void renormalise(Reference& tensor);

}  // namespace gradkern::chain
