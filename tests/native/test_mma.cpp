// The scalar model of the matrix units against worked examples whose outputs came from elsewhere (tests/data).
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "check.hpp"
#include "mma/model.hpp"

namespace {

using namespace gradkern;
using formats::FormatId;

mma::Unit unit_of(const std::string& name) {
  for (int i = 1; i < mma::unit_count; ++i)
    if (name == mma::unit_names[i]) return static_cast<mma::Unit>(i);
  throw std::invalid_argument("no unit " + name);
}

FormatId format_of(const std::string& name) {
  for (int i = 0; i < formats::format_count; ++i) {
    const auto id = static_cast<FormatId>(i);
    if (formats::visit(id, [&](auto f) { return name == decltype(f)::name; })) return id;
  }
  throw std::invalid_argument("no format " + name);
}

std::vector<std::uint32_t> words(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::uint32_t> list;
  for (std::string word; in >> word;) list.push_back(static_cast<std::uint32_t>(std::stoul(word, nullptr, 16)));
  return list;
}

// unit a b accumulate | a ... | b ... | c -> d | what it shows
void test_examples() {
  std::ifstream file(GRADKERN_TEST_DATA "/mma_examples.txt");
  for (std::string line; std::getline(file, line);) {
    if (line[0] == '#') continue;
    std::istringstream in(line);
    std::string head, a_text, b_text, result, shows, unit, a_format, b_format, accumulate, c, arrow, d;
    for (std::string* part : {&head, &a_text, &b_text, &result, &shows}) std::getline(in, *part, '|');
    std::istringstream(head) >> unit >> a_format >> b_format >> accumulate;
    std::istringstream(result) >> c >> arrow >> d;
    const mma::Instruction instruction =
        mma::find(unit_of(unit), format_of(a_format), format_of(b_format), format_of(accumulate));
    CHECK(instruction.k > 0, line);
    if (!instruction.k) continue;
    const auto a = words(a_text), b = words(b_text);
    const std::uint32_t got =
        mma::walk(instruction, a.data(), b.data(), static_cast<std::int64_t>(a.size()), words(c)[0]);
    CHECK(got == words(d)[0], line, std::hex, got);
  }
}

// fp8 through mma.sync on Hopper: two halves in float16 from +0, then C by one rounding to nearest.
void test_halves() {
  const auto fp8 = mma::find(mma::Unit::hopper, FormatId::float8_e4m3fn, FormatId::float8_e4m3fn, FormatId::float32);
  CHECK(fp8.form == mma::Form::halves && fp8.k == 32);
  const std::uint32_t one = 0x38, tiny = 0x08;  // 1 and 2^-6
  // 1 + 2^-24 + 2^-24 in one sum is 1 + 2^-23; C that comes late is rounded to nearest: 1 + 2^-12 + 2^-24 to even.
  const std::uint32_t a[] = {one, tiny}, b[] = {one, tiny};
  CHECK(mma::execute(fp8, a, b, 2, 0x33800000) == 0x3F800800);
  CHECK(mma::execute(fp8, a, b, 2, 0x33C00000) == 0x3F800801);  // 1.5 * 2^-24
  CHECK(mma::execute(fp8, a, b, 2, 0x80000000) == 0x3F800800);
  CHECK(mma::execute(fp8, a, b, 0, 0x80000000) == 0);
}

void test_refusals() {
  using mma::find, mma::Unit;
  CHECK(find(Unit::volta, FormatId::bfloat16, FormatId::bfloat16, FormatId::float32).k == 0);
  CHECK(find(Unit::ampere, FormatId::bfloat16, FormatId::bfloat16, FormatId::float16).k == 0);
  CHECK(find(Unit::ampere, FormatId::float8_e5m2, FormatId::float8_e5m2, FormatId::float32).k == 0);
  CHECK(find(Unit::hopper, FormatId::float16, FormatId::bfloat16, FormatId::float32).k == 0);
  CHECK(find(Unit::hopper, FormatId::float16, FormatId::float16, FormatId::float32, 4).k == 0);
  CHECK(find(Unit::hopper, FormatId::float16, FormatId::float16, FormatId::float32, 8).step.products == 8);
}

}  // namespace

int main() {
  test_examples();
  test_halves();
  test_refusals();
  return test::report();
}
