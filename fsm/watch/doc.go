// Package watch serves watchers of a state machine. A [Hub] observes the machine and
// keeps a history of each group's last changes; a watcher holds a position in it and
// polls for the next step.
//
//	hub := watch.NewHub(fsm.New().State())
//	m := fsm.New(hub)
//	defer hub.Close()
//	w := hub.Group(watch.Known{Group: "web"}) // it has nothing: the first step is a snapshot
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
// A watcher gets every applied change once, in the order of the log. It gets a
// snapshot if its position is older than the history, or names a fingerprint that
// the group did not have at that revision. After its group is deleted it gets that,
// and a snapshot when the group is created again.
//
// A change is encoded once for all watchers, and each piece of a snapshot once for
// those that send it at the same time. A watcher holds a revision and no changes, so
// a slow one costs nothing and delays nobody. Each group has its own lock, so a
// change does not wait for the watchers of other groups; watchers of many groups
// take the hub's lock.
package watch
