// Entry point of fretsaw-tests: every *_test.cc beside it registers its cases with doctest.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
