// Package reactortest has a [Poller] without a kernel, so that whatever stands
// on a reactor can be tested in virtual time and in any order of events.
//
// Tests of packages reactor and worker make one and pass it in
// [reactor.Options]. The test then plays the kernel: it says with
// [Poller.Event] what happens to which descriptor, and reads from
// [Poller.Calls] what the reactor has asked for. Descriptors are plain numbers
// here; nothing is opened.
//
// Inside a bubble of testing/synctest the reactor sleeps durably in
// [Poller.Wait]: synctest.Wait returns once it has nothing left to do, and
// time.Sleep moves the clock from deadline to deadline. For that the Poller
// must be made inside the bubble. A reactor that is told to keep going, or
// whose patience is always 0, never sleeps and stops virtual time.
//
// # Who owns what
//
// The reactor under test uses the Poller like any other and closes it. All
// methods may be called from any goroutine.
//
// The invariant: what a test injects is delivered exactly once, in the order
// in which it was injected, whatever the reactor does meanwhile. Edges are the
// test's business: nothing is merged as epoll would merge it, a listener's
// event is reported once and not again until accepted, and only [Poller.Closed]
// takes back what was not fetched yet.
package reactortest
