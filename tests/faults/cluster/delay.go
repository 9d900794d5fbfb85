//go:build linux

package cluster

import (
	"container/heap"
	"sync"
	"time"
)

// delayLine gives packets to write when they are due.
type delayLine struct {
	write func([]byte)

	mu    sync.Mutex // guards queue
	queue packets
	wake  chan struct{}
	once  sync.Once
	done  chan struct{}
}

type packet struct {
	data []byte
	due  time.Time
}

func newDelayLine(write func([]byte)) *delayLine {
	return &delayLine{write: write, wake: make(chan struct{}, 1), done: make(chan struct{})}
}

func (d *delayLine) add(data []byte, due time.Time) {
	d.mu.Lock()
	heap.Push(&d.queue, packet{data, due})
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// next takes what is due, and says how long the next has to wait.
func (d *delayLine) next(now time.Time) (due [][]byte, wait time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.queue) > 0 {
		if wait = d.queue[0].due.Sub(now); wait > 0 {
			return due, wait
		}
		due = append(due, heap.Pop(&d.queue).(packet).data)
	}
	return due, time.Hour
}

func (d *delayLine) loop() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		due, wait := d.next(time.Now())
		for _, p := range due {
			d.write(p)
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-d.wake:
		case <-d.done:
			return
		}
	}
}

func (d *delayLine) close() { d.once.Do(func() { close(d.done) }) }

// packets is a heap by the time they are due.
type packets []packet

func (p packets) Len() int           { return len(p) }
func (p packets) Less(i, j int) bool { return p[i].due.Before(p[j].due) }
func (p packets) Swap(i, j int)      { p[i], p[j] = p[j], p[i] }
func (p *packets) Push(x any)        { *p = append(*p, x.(packet)) }
func (p *packets) Pop() any {
	old := *p
	last := old[len(old)-1]
	*p = old[:len(old)-1]
	return last
}
