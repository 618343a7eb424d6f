// Clipping of many tensors, their chunks dealt to threads.
#pragma once

#include "cpu/kernels.hpp"

namespace gradkern::cpu {

void survey_tensors(const Kernels& kernels, const executor::ClipTensor* tensors, std::int64_t count, ops::Norm p,
                    ops::Survey* surveys);

void scale_tensors(const Kernels& kernels, const executor::ClipTensor* tensors, std::int64_t count,
                   const ops::Survey* surveys, const ops::ClipFactor* factors, bool zero, ops::ClipCounts* counts);

void clamp_tensors(const Kernels& kernels, const executor::ClipTensor* tensors, std::int64_t count,
                   const ops::ClipBounds* bounds, bool zero, ops::ClipCounts* counts);

}  // namespace gradkern::cpu
