"""Objects with attributes: a search tree that grows and is thinned out, and a queue of events with subscribers."""
import collections

NODES = 60000
EVENTS = 120000


class Node:
    def __init__(self, key, payload):
        self.key = key
        self.payload = payload
        self.left = None
        self.right = None


class Tree:
    def __init__(self):
        self.root = None
        self.count = 0

    def insert(self, key, payload):
        self.count += 1
        if self.root is None:
            self.root = Node(key, payload)
            return
        node = self.root
        while True:
            side = "left" if key < node.key else "right"
            below = getattr(node, side)
            if below is None:
                setattr(node, side, Node(key, payload))
                return
            node = below

    def walk(self):
        stack, node = [], self.root
        while stack or node:
            while node:
                stack.append(node)
                node = node.left
            node = stack.pop()
            yield node
            node = node.right


class Event:
    __slots__ = ("number", "tags", "text")

    def __init__(self, number):
        self.number = number
        self.tags = {"kind": number % 17, "half": number / 2}
        self.text = str(number) * (number % 5 + 1)


class Subscriber:
    def __init__(self, kind):
        self.kind = kind
        self.seen = collections.deque(maxlen=500)

    def take(self, event):
        if event.tags["kind"] == self.kind:
            self.seen.append(event)


key, tree = 1, Tree()
for i in range(NODES):
    key = key * 1103515245 + 12345 & 0x7FFFFFFF
    tree.insert(key, [i, str(key)])
kept = Tree()
for node in tree.walk():
    if node.key % 3:
        kept.insert(node.key * 7919 % 1000003, node.payload)
print(tree.count, kept.count, sum(node.payload[0] for node in kept.walk()))

subscribers = [Subscriber(kind) for kind in range(17)]
for number in range(EVENTS):
    event = Event(number)
    subscribers[number % 17].take(event)
    subscribers[(number + 1) % 17].take(event)
print(sum(len(event.text) for subscriber in subscribers for event in subscriber.seen))
