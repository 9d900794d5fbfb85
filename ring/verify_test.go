package ring

import "testing"

func TestVerifyFindsDamagedPoints(t *testing.T) {
	r, err := New(Params{VirtualNodes: 64}, []Member{{ID: "a", Weight: 1}, {ID: "b", Weight: 2}})
	if err != nil {
		t.Fatal(err)
	}
	if !r.Verify() {
		t.Fatal("a sound ring is found damaged")
	}
	fingerprint := r.Fingerprint()
	owner := r.table.ownerAt(7)
	r.table.setOwner(7, 1-owner)
	if r.Verify() {
		t.Error("a point with another owner is not found")
	}
	if r.Fingerprint() != fingerprint {
		t.Error("the fingerprint depends on the points")
	}
}
