# gradkern_add_isa(<name> <flags>...): the kernels of one instruction set, as an object library of its own. The flags
# are also an interface target, gradkern_isa_<name>, and the names a global property, GRADKERN_ISAS: tests build on both.
function(gradkern_add_isa name)
  add_library(gradkern_isa_${name} INTERFACE)
  target_link_libraries(gradkern_isa_${name} INTERFACE gradkern_policy)
  target_compile_options(gradkern_isa_${name} INTERFACE ${ARGN})
  add_library(gradkern_cpu_${name} OBJECT cpu/kernels_${name}.cpp)
  target_link_libraries(gradkern_cpu_${name} PRIVATE gradkern_isa_${name})
  target_sources(gradkern_kernels PRIVATE $<TARGET_OBJECTS:gradkern_cpu_${name}>)
  set_property(GLOBAL APPEND PROPERTY GRADKERN_ISAS ${name})
endfunction()

# gradkern_add_instruction(<name> <flags>...): the product by one instruction, as an object library of its own.
function(gradkern_add_instruction name)
  add_library(gradkern_cpu_${name} OBJECT cpu/product_${name}.cpp)
  target_link_libraries(gradkern_cpu_${name} PRIVATE gradkern_policy)
  target_compile_options(gradkern_cpu_${name} PRIVATE ${ARGN})
  target_sources(gradkern_kernels PRIVATE $<TARGET_OBJECTS:gradkern_cpu_${name}>)
endfunction()

# gradkern_isa_runs(<name> <variable>): whether programs compiled for this instruction set run on the build machine.
function(gradkern_isa_runs name variable)
  set(features_avx2 avx2 fma f16c bmi bmi2)
  set(features_avx512 avx2 fma f16c avx512f avx512vl avx512dq avx512bw)
  set(features_avx512fp16 ${features_avx512} avx512fp16)
  if(NOT DEFINED features_${name})
    set(${variable} ON PARENT_SCOPE) # base and neon: whatever the compiler targets
    return()
  elseif(CMAKE_CROSSCOMPILING)
    set(${variable} OFF PARENT_SCOPE)
    return()
  endif()
  list(TRANSFORM features_${name} REPLACE "(.+)" "__builtin_cpu_supports(\"\\1\")" OUTPUT_VARIABLE tests)
  list(JOIN tests " && " condition)
  include(CheckCXXSourceRuns)
  check_cxx_source_runs("int main() { return ${condition} ? 0 : 1; }" GRADKERN_RUNS_${name})
  set(${variable} ${GRADKERN_RUNS_${name}} PARENT_SCOPE)
endfunction()
