// Where every entry of a stored tensor went: eight classes that sum to its size, and which NaN was created where.
//
// For entry v = fl(wide) with true value r:
//   v finite, |v| >= smallest normal       kept; overflow if v is a finite wide value clamped to the largest
//   v finite, 0 < |v| < smallest normal    subnormal
//   v = 0, wide != 0                       flushed by this rounding
//   v = 0, wide = 0, r = 0                 structural: zero in real arithmetic too
//   v = 0, wide = 0, r != 0                inherited if every term had a lost factor; flushed if the terms were
//                                          too small for the accumulator; cancelled if they annihilated each other
//   v inf or NaN                           overflow if made here from finite inputs; invalid if a NaN was made here
//                                          (inf - inf, 0 * inf); else inherited
#pragma once

#include <functional>

#include "chain/summary.hpp"
#include "chain/tensor.hpp"

namespace gradkern::chain {

enum class Fate : int { structural, kept, subnormal, flushed, cancelled, inherited, overflow, invalid };
inline constexpr int fate_count = 8;
inline constexpr const char* fate_names[] = {"structural", "kept",      "subnormal", "flushed",
                                             "cancelled",  "inherited", "overflow",  "invalid"};

enum class InvalidKind : int { none, inf_minus_inf, zero_times_inf };

struct Attribution {
  std::int64_t counts[fate_count] = {};
  std::int64_t first[fate_count] = {-1, -1, -1, -1, -1, -1, -1, -1};
  std::int64_t stalled = 0;
  InvalidKind invalid_kind = InvalidKind::none;
};

// Why a wide result is zero or not finite, judged from the inputs of that entry.
struct Cause {
  Fate fate;
  InvalidKind kind = InvalidKind::none;
};

// How a tensor was rounded to storage: enough to repeat one element's rounding.
struct Rounded {
  formats::Mode mode;
  std::uint64_t stream;
};

// Judges entries [begin, end). Any number of ranges at once.
using Judge = std::function<void(std::int64_t begin, std::int64_t end, Attribution& part)>;

// All entries, on all threads; meanwhile one of them does what is given besides.
Attribution attribute(std::int64_t size, const Judge& judge, const std::function<void()>& besides);

// wide: the values before rounding, in float32 or float64. What is given by reference outlives the judge.
//
// A tensor that was given, times a scale.
Judge judge_given(const Executor& e, const Source& source, double scale, const Stored& stored, const Rounded& how,
                  const Reference& reference);
Judge judge_product(const executor::ProductArgs& product, const Source& wide, const Stored& stored, const Rounded& how,
                    const Reference& reference);
// forward: args.grad_output is null. backward: args.slope holds phi'.
Judge judge_activation(const executor::ActivationArgs& args, const Source& wide, const Stored& stored,
                       const Rounded& how, const Reference& reference);
// An argument that is stored as it is, and is its own truth; its summary may leave nothing to be judged.
Attribution attribute_exact(const Stored& stored, const Summary& summary);

// Entries that kept the same subnormal value as `before` while their true magnitude fell.
std::int64_t count_stalled(const Stored& stored, const Reference& reference, const Stored& before,
                           const Reference& reference_before);

// || stored / scale - reference || / || reference ||; NaN if anything stored is not finite.
double relative_error(const Executor& e, const Stored& stored, double log2_scale, const Reference& reference);

}  // namespace gradkern::chain
