#include "shapes.h"
#include <cstddef>

namespace outer {
struct Base {
	int32_t id;
	virtual ~Base();
};
Base::~Base() {}

struct Plain {
	int32_t id;
	static int count;
};

namespace inner {
struct Derived : Plain {
	double value;
	uint16_t tail;
};

class point {
public:
	double longitude, latitude, height;
};

int measure(const Derived &derived, point *where)
{
	return derived.id + (int)where->height;
}
} // namespace inner

extern "C" int derived_size(inner::Derived *derived, Base *base)
{
	return (int)sizeof(*derived) + base->id;
}
} // namespace outer

template <typename T> struct Pair {
	T first, second;
};

extern "C" long pair_sum(Pair<long> *pair, std::nullptr_t)
{
	return pair->first + pair->second;
}

extern "C" int point_x(struct point *p)
{
	return p->x;
}
