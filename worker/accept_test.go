package worker

func shortageChild() error { return nil }
