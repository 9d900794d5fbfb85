package ring_test

import (
	"fmt"
	"log"

	"github.com/werbenhu/registry/ring"
)

func Example() {
	r, err := ring.New(ring.DefaultParams(), []ring.Member{
		{ID: "webserver1", Weight: 1},
		{ID: "webserver2", Weight: 1},
		{ID: "webserver3", Weight: 2},
	})
	if err != nil {
		log.Fatal(err)
	}
	owner := r.Match("user-id-1")
	fmt.Println(r.Member(owner).ID)
	for _, i := range r.MatchN(nil, "user-id-1", 2) {
		fmt.Println("replica:", r.Member(i).ID)
	}
	// Output:
	// webserver1
	// replica: webserver1
	// replica: webserver3
}

func ExampleNewPlan() {
	r, err := ring.New(ring.DefaultParams(), []ring.Member{{ID: "a", Weight: 1}, {ID: "b", Weight: 1}, {ID: "c", Weight: 1}})
	if err != nil {
		log.Fatal(err)
	}
	plan, err := ring.NewPlan(r, ring.Change{Join: []ring.Member{{ID: "d", Weight: 1}}})
	if err != nil {
		log.Fatal(err)
	}
	limit, err := ring.ParseShare("30%")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("moves", plan.Moved, "within the limit:", plan.Moved.Cmp(limit) <= 0)
	for _, m := range plan.Moves {
		fmt.Println(m.From, "→", m.To, m.Share)
	}
	// Output:
	// moves 24.914945% within the limit: true
	// c → d 8.669342%
	// b → d 8.402213%
	// a → d 7.843390%
}

func ExampleRing_Locate() {
	r, err := ring.New(ring.Params{VirtualNodes: 64}, []ring.Member{
		{ID: "webserver1", Weight: 1},
		{ID: "webserver2", Weight: 1, State: ring.Draining},
		{ID: "webserver3", Weight: 1},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(r.Locate("user-id-1").Why)
	// Output: the first point at or after 0xe6f0a419815a6c2f is 0xe70adbfe61e459fe, number 57 of "webserver1"
}
