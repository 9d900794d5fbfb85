// Package watch tells of the changes of a state machine. A [Hub] observes the
// machine and remembers each group's last changes; a watcher holds a position in
// them and asks for what comes next.
//
//	hub := watch.NewHub(fsm.New().State())
//	m := fsm.New(hub)
//	defer hub.Close()
//	w := hub.Group(watch.Known{Group: "web"}) // it knows nothing: the first step is the group as a whole
//	for {
//		step, wake := w.Poll()
//		if wake == nil {
//			send(step)
//			continue
//		}
//		<-wake // something changed: poll again
//	}
//
// # Promises
//
// A watcher is told of a change when it was applied, in the order of the log, and
// of every change once. One whose position is not remembered any more, or that
// names a fingerprint which the group did not have at its revision, is given the
// group as a whole and goes on from there. One whose group is deleted is told so,
// and is given the group as a whole when it is made again.
//
// A change is encoded once for all watchers, and so is each piece of a snapshot for
// those who send it at one time. A watcher holds a revision and no
// changes, so one that does not read costs nothing and delays nobody. Each group
// has a lock of its own: a change does not wait for those who watch another
// group alone. Those who watch many take the hub's lock.
package watch
