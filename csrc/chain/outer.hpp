// The norm of a step's share of a weight gradient, || sum_i a[i]^T b[i] ||, without the matrix where that is the larger
// work: its square is sum_ij (a a^T)[i,j] (b b^T)[i,j].
#pragma once

#include "chain/tensor.hpp"

namespace gradkern::chain {

// log2 of the Frobenius norm of a^T b, a (rows, m) and b (rows, n); -inf for zero, NaN if an entry is not finite.
double log2_norm_of_outer_sum(const Executor& e, const Source& a, const Source& b, std::int64_t rows);

// log2 of the norm of a tensor; -inf for zero.
double log2_norm(const Executor& e, const Reference& tensor);

}  // namespace gradkern::chain
