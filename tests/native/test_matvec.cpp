// Matrix times vectors: every executor against the reference loop, bit by bit; and the passes of a chain on each of them.
#include "base/thread_pool.hpp"
#include "chain/tangent.hpp"
#include "check.hpp"
#include "ref/matvec.hpp"
#include "tensors.hpp"

namespace gradkern {
namespace {

using test::FormatId;

void compare(const std::vector<executor::Executor>& executors, std::int64_t rows, std::int64_t columns,
             std::int64_t vectors, FormatId format, bool transposed) {
  const auto seed = static_cast<std::uint64_t>(rows * 1000 + columns);
  const auto matrix = test::tensor(format, test::random_values(seed, rows * columns, -6, 2));
  const std::int64_t in = transposed ? rows : columns, out = transposed ? columns : rows;
  const auto x = test::random_values(seed + 1, vectors * in, -3, 3);
  std::vector<double> truth;
  for (std::int64_t v = 0; v < vectors; ++v) {
    const std::vector<double> one(x.begin() + v * in, x.begin() + (v + 1) * in);
    const auto y = ref::matvec(rows, columns, matrix.values, one, transposed);
    truth.insert(truth.end(), y.begin(), y.end());
  }
  for (const auto& e : executors) {
    std::vector<double> y(static_cast<std::size_t>(vectors * out), -7.0);
    e.matvec(e, {rows, columns, vectors, format, matrix.data(), transposed, x.data(), y.data()});
    for (std::size_t i = 0; i < truth.size(); ++i)
      CHECK(test::same(y[i], truth[i]), e.name, test::name_of(format), rows, columns, vectors, transposed, "at", i,
            "got", y[i], "expected", truth[i]);
  }
}

void ragged_sizes(const std::vector<executor::Executor>& executors) {
  for (const FormatId format : test::storage_formats)
    for (const bool transposed : {false, true})
      for (std::int64_t n = 1; n <= 40; ++n) compare(executors, n * 7 % 40 + 1, n, n % 3 + 1, format, transposed);
}

// More than a block of columns, and enough for threads to share.
void thread_counts(const std::vector<executor::Executor>& executors) {
  for (const int threads : {1, 2, 3, 7}) {
    base::set_num_threads(threads);
    for (const FormatId format : test::storage_formats)
      for (const bool transposed : {false, true}) compare(executors, 131, 1100, 2, format, transposed);
  }
}

void passes(const std::vector<executor::Executor>& executors) {
  const auto w = test::tensor(FormatId::float32, test::random_values(3, 9 * 9, -3, 1));
  const std::vector<double> slope = test::random_values(4, 9, -2, 0);
  const chain::Factor factor{9, 9, {w.format, w.data(), w.size()}, slope.data()};
  std::vector<double> first, first_triangles;
  for (const auto& e : executors) {
    const chain::Tangent tangent(e, std::vector<chain::Factor>(2000, factor));
    std::vector<double> vectors = test::random_values(5, 3 * 9, 0, 0), triangles(2000 * 9);
    tangent.forward(vectors, 3, triangles.data(), [] {});
    for (std::int64_t i = 0; i < 3; ++i)
      for (std::int64_t j = 0; j <= i; ++j) {
        double dot = 0;
        for (std::int64_t k = 0; k < 9; ++k)
          dot += vectors[static_cast<std::size_t>(i * 9 + k)] * vectors[static_cast<std::size_t>(j * 9 + k)];
        CHECK(std::abs(dot - (i == j)) < 1e-14, e.name, i, j, dot);
      }
    if (first.empty()) first = vectors, first_triangles = triangles;
    for (std::size_t i = 0; i < first.size(); ++i) CHECK(test::same(vectors[i], first[i]), e.name, i);
    for (std::size_t i = 0; i < triangles.size(); ++i) CHECK(test::same(triangles[i], first_triangles[i]), e.name, i);
  }
}

}  // namespace
}  // namespace gradkern

int main() {
  const auto executors = gradkern::test::usable_executors();
  gradkern::ragged_sizes(executors);
  gradkern::thread_counts(executors);
  gradkern::passes(executors);
  return gradkern::test::report();
}
