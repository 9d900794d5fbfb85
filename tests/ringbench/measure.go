package main

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"
)

type config struct {
	members  int
	keys     int
	rounds   int
	duration time.Duration
}

// result is a row. Times are per key or per operation.
type result struct {
	entry
	skipped          string
	serial, parallel time.Duration // ten times as long, to keep a decimal: see perKey
	batch            time.Duration // likewise; 0 if there is none
	build, join      time.Duration
	memory           int64   // bytes
	largest          float64 // ÷ mean, by the keys
	moved            float64 // ÷ keys that the joining members got
}

// measureAll builds every contender once, takes the figures that need no clock, and then measures
// lookups in rounds over all contenders, so that a busy moment of the machine hits all of them.
func measureAll(c config) ([]result, error) {
	ids, keys := makeIDs(c.members), makeKeys(c.keys)
	results := make([]result, len(entries))
	built := make([]contender, len(entries))
	for i, e := range entries {
		results[i].entry = e
		if e.most > 0 && c.members > e.most {
			results[i].skipped = fmt.Sprintf("not above %d members (%s)", e.most, e.why)
			continue
		}
		var err error
		if built[i], err = results[i].measureBuild(ids); err != nil {
			return nil, fmt.Errorf("%s: %w", e.name, err)
		}
		results[i].measureMovement(built[i], keys, c.members)
	}
	serial, parallel, batch := make([][]time.Duration, len(entries)), make([][]time.Duration, len(entries)), make([][]time.Duration, len(entries))
	for range c.rounds {
		for i, b := range built {
			if b == nil {
				continue
			}
			serial[i] = append(serial[i], perKey(1, c.duration, keys, b))
			parallel[i] = append(parallel[i], perKey(runtime.GOMAXPROCS(0), c.duration, keys, b))
			if many, ok := b.(batcher); ok {
				batch[i] = append(batch[i], perKeyInBatches(c.duration, keys, many))
			}
		}
	}
	for i := range results {
		results[i].serial, results[i].parallel, results[i].batch = median(serial[i]), median(parallel[i]), median(batch[i])
	}
	return results, nil
}

func makeIDs(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("webserver-%d", i)
	}
	return ids
}

// makeKeys returns 16-byte keys.
func makeKeys(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("user-id-%08d", i)
	}
	return keys
}

// measureBuild builds a contender three times if that is quick, and keeps the last.
func (r *result) measureBuild(ids []string) (contender, error) {
	before := heap()
	start := time.Now()
	c, err := r.entry.build(ids)
	times := []time.Duration{time.Since(start)}
	if err != nil {
		return nil, err
	}
	r.memory = heap() - before
	for range 2 {
		if times[0] > time.Second {
			break
		}
		start = time.Now()
		if c, err = r.entry.build(ids); err != nil {
			return nil, err
		}
		times = append(times, time.Since(start))
	}
	r.build = median(times)
	return c, nil
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// joins is how many members join, one after the other.
const joins = 5

// measureMovement counts owners, and then compares them before and after joins, which it times. The joins look at a
// quarter of the keys.
func (r *result) measureMovement(c contender, keys []string, members int) {
	owners := make([]string, len(keys))
	count, most := map[string]int{}, 0
	for i, key := range keys {
		owners[i] = c.lookup(key)
		count[owners[i]]++
		most = max(most, count[owners[i]])
	}
	r.largest = float64(most) * float64(members) / float64(len(keys))
	var times []time.Duration
	moved, got := 0, 0
	for j := range joins {
		id := fmt.Sprintf("webserver-joined-%d", j)
		times = append(times, timeJoin(c, id))
		for i, key := range keys[:(len(keys)+3)/4] {
			if now := c.lookup(key); now != owners[i] {
				owners[i] = now
				moved++
				if now == id {
					got++
				}
			}
		}
	}
	r.join, r.moved = median(times), float64(moved)/float64(max(got, 1))
}

func timeJoin(c contender, id string) time.Duration {
	start := time.Now()
	c.join(id)
	return time.Since(start)
}

var sink [64]struct {
	n int
	_ [120]byte // one cache line for each goroutine
}

// perKey runs lookups in so many goroutines and returns ten times the wall time divided by all keys looked up.
func perKey(goroutines int, d time.Duration, keys []string, c contender) time.Duration {
	counts := make([]int, goroutines)
	start := time.Now()
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			at, sum := g*len(keys)/goroutines, 0
			for counts[g] == 0 || time.Since(start) < d {
				for range 1024 {
					if at++; at >= len(keys) {
						at = 0
					}
					sum += len(c.lookup(keys[at]))
				}
				counts[g] += 1024
			}
			sink[g%len(sink)].n += sum
		})
	}
	wg.Wait()
	total := 0
	for _, n := range counts {
		total += n
	}
	return time.Since(start) * 10 / time.Duration(total)
}

// perKeyInBatches is perKey for batches of 100 keys in one goroutine.
func perKeyInBatches(d time.Duration, keys []string, c batcher) time.Duration {
	const size = 100
	if len(keys) < size {
		return 0
	}
	var dst [size]int32
	total, at := 0, 0
	start := time.Now()
	for time.Since(start) < d {
		for range 10 {
			if at+size > len(keys) {
				at = 0
			}
			sink[0].n += int(c.batch(dst[:0], keys[at:at+size])[0])
			at += size
		}
		total += 10 * size
	}
	return time.Since(start) * 10 / time.Duration(total)
}

func median(times []time.Duration) time.Duration {
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	return times[len(times)/2]
}
