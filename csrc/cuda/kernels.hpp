// The launchers of every kernel, one file a concept: each enqueues its kernels on a stream and returns an error or 0.
// What they compute, and in what chunks their partial results come, executor/device.hpp says.
#pragma once

#include "executor/device.hpp"

namespace gradkern::cuda {

using executor::Stream;

int convert(const executor::ConvertArgs* list, int count, Stream stream);
int products(const executor::ProductArgs* list, int count, Stream stream);
int mma_product(const executor::ProductArgs* args, Stream stream);  // where a unit is named
int matvec(const executor::MatvecArgs* args, Stream stream);
int activation_forward(const executor::ActivationArgs* args, Stream stream);
int activation_backward(const executor::ActivationArgs* args, Stream stream);
int statistics(const executor::StatisticsList* list, Stream stream);
int count_patterns(const executor::StatisticsArgs* args, std::int64_t* counts, std::int64_t* first_nonfinite,
                   Stream stream);
int errors(const executor::ErrorArgs* args, executor::ErrorSums* partials, Stream stream);
int clip_survey(const executor::ClipList* list, ops::Norm p, ops::Survey* partials, Stream stream);
int clip_scale(const executor::ClipList* list, const ops::ClipFactor* factors, bool zero, ops::ClipCounts* partials,
               Stream stream);
int clip_clamp(const executor::ClipList* list, const ops::ClipBounds* bounds, bool zero, ops::ClipCounts* partials,
               Stream stream);
int update(const executor::UpdateArgs* args, Stream stream);
int elementary_f32(int function, const float* x, float* y, std::int64_t size, Stream stream);
int elementary_f64(int function, const double* x, double* y, std::int64_t size, Stream stream);

}  // namespace gradkern::cuda
