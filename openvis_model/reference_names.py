"""Names of all kinds of things, which say how well a name that has nothing to do with an object fits it."""

from openvis_model.tokenizer import Tokenizer, WordTokenizer
from openvis_model.vocabulary import PROMPTS, split_words

_NAMES = """
    airplane, anchor, ant, apple, armchair, axe, backpack, bag, balcony, ball, balloon, banana, barrel,
    basket, bathtub, bear, bed, bee, bell, belt, bench, bicycle, bird, blanket, boat, bone, book, boot,
    bottle, bowl, box, bread, brick, bridge, broom, brush, bucket, bus, butterfly, button, cabinet, cable,
    cake, calculator, camel, camera, candle, car, carpet, carrot, castle, cat, chain, chair, cheese, chicken,
    chimney, church, clock, cloud, coat, coin, computer, cookie, corn, couch, cow, crab, crane, crown, cup,
    curtain, deer, desk, dog, doll, dolphin, door, dragon, dress, drill, drum, duck, egg, elephant, engine,
    envelope, face, fan, feather, fence, fire, fish, flag, flower, fork, fountain, fox, frog, garage, gate,
    giraffe, glass, glove, goat, grape, guitar, hammer, hand, hat, helicopter, helmet, horse, house, insect,
    jar, kettle, key, keyboard, kite, knife, ladder, lamp, leaf, lemon, lighthouse, lion, lizard, lock, map,
    mask, mirror, monkey, moon, motorcycle, mountain, mouse, mushroom, nail, needle, newspaper, onion, orange,
    owl, oven, painting, pan, paper, parrot, pen, pencil, penguin, person, piano, pillow, pipe, pizza, plate,
    pot, potato, printer, pumpkin, rabbit, radio, refrigerator, ring, robot, rock, roof, rope, rug, sandwich,
    saw, scarf, scissors, shark, sheep, shelf, shell, ship, shirt, shoe, shovel, sign, sink, skirt, snake,
    soap, sock, spider, spoon, stairs, statue, stove, strawberry, suitcase, sunglasses, swan, table, tank,
    telephone, television, tent, tie, tiger, tomato, toothbrush, tower, tractor, traffic light, train, tree,
    truck, turtle, umbrella, vase, violin, wall, watch, wheel, whistle, window, wolf, wrench, zebra
"""


def reference_names(tokenizer: Tokenizer) -> list[str]:
    """Returns names that a text tower can read: common nouns; of one with few words, each word that no prompt has."""
    if isinstance(tokenizer, WordTokenizer):
        prompts = {word for prompt in PROMPTS for word in split_words(prompt)}
        return [word for word in tokenizer.ids if word not in prompts]
    return [" ".join(name.split()) for name in _NAMES.split(",")]
