"""Nouns for things that an answer may count: `7 apples` is 7. Words that change the value (`halves`, `dozen`) are not
in the list.
"""

_NOUNS = """
acorn addend adult aircraft album alien alligator almond animal ant apartment app apple application apricot arm
arrangement array arrow art article artist asparagus asteroid athlete attempt attendee avocado award baby backpack bag
bagel bale ball balloon banana band bar barrel baseball basil basket basketball bat batch battery bead bean bear beat
beaver bed bedroom bee beer beet beetle berry beverage bicycle bike bill bin bird birthday biscuit blackberry blink
block blueberry board boat book bookcase bookmark bottle bouquet bow bowl box boy bracelet branch bread breath brick
broccoli brother brownie brush bucket bug building bulb bull bun bunch bundle bunny burger burrito bus bush bushel
business butter butterfly button buyer cabbage cabin cage cake call caller camera camper can candle candy cantaloupe
cap capsule car card carnation carrot cart carton cartridge case cash cashew cat caterpillar cauliflower cd celery
cell cello chair chalk chapter character checker cheese cherry chicken child children chimp chip chipmunk chocolate
choice chord chore circle citizen city clam class classmate classroom clay click client clip clock cloth clothing
clove clover clown club coach coal coat coconut coffee coin colleague collection color coloring column combination
comic commercial committee company component compost computer cone configuration consonant container contestant cookie
coordinate copy corn corner costume cough country county couple coupon course cousin cow crab cracker cranberry crate
crayon cream creature cricket croissant crossing crow cub cube cucumber cupboard cupcake curtain curve customer cut
cycle daisy dance dancer dandelion dart daughter decoration deer delegate desk dessert diagonal diamond diaper die
digit dime dinner dinosaur direction dirt dish district divisor doctor dog doll dollhouse dolphin domino donor donut
door dot dough doughnut download drawer drawing dress drink driver drone drum drumbeat drumstick duck duckling dvd
eagle ear earring edge eel egg eggplant element elephant elf email employee emu entry envelope episode equation eraser
error essay event exam exercise extremum eye fabric face factor factory fairy family fan feather fence fern fig figure
file finger firecracker firefighter fireman firework firm fish flag flask flat flavor flea flight flip floor flour
flower fly folder follower food foot football footstep forest fork form fossil fowl fraction frame friend frog fruit
fry fudge fuel function game garbage gas gasoline gate geese gem gerbil ghost giant gift giraffe girl girlfriend glass
glove glue gnome goal goat goblin goldfish goose grade grader grain granola grape grapefruit graph grass gravel group
guard guest guitar gum gumball gumdrop guppy hair haircut hamburger hammer hamster hand handshake hat hay hazelnut
head headband heart heartbeat helmet hen hero hexagon highlighter hill holder hole home homer honey honeydew hook hoop
hop horse hotdog hotel house household ice iceberg icicle idea individual inhabitant inning insect instrument integer
intersection interval investor invitation iris island item jacket jar jeans jelly jellybean jersey jewel job jockey
joke judge jug juice jump junior junk juror kale kangaroo keg key keyboard keychain keystroke kick kid kind kit kite
kitten kiwi knife knight knives koala labeling ladder lady ladybug lake lamb lamp lane language lantern lap laptop
laser lawn leader leaf leaves leg lego lemon lemonade lentil lesson letter lettuce level license life light lime line
lion lives lizard llama loaf loaves lobster locker lollipop lumber lunch machine magazine magnet mail mailbox man
mango mangoes marble mark marker marshmallow mask mat match matchbox matchstick material matrices matrix maximum maze
meal measure meat meatball medal medicine meeting melon member men message mice microscope milk milkshake mineral
minimum minivan minnow mirror mistake mistletoe mitten model money monkey monomial monster moth motorcycle mountain
mouse move movie muffin mug mulch multiple mushroom musician nail name nap napkin necklace nectarine needle neighbor
neighborhood nest newspaper nickel nickname night node noodle note notebook novel nugget number nurse nut oak object
octopus offer office oil olive omelet omelette onion option orange orbit orchard orchid organ organization oriole
ornament outcome outfit owl owner ox oxen oyster pace pack package packet paddle page pail paint painting pair pajama
palindrome pan pancake panda panel pant papaya paper paperclip parabola paragraph parcel parent park parrot part
partition partner party pass passenger patch path patient patron pattern patty pea peach peak peanut pear pearl pebble
pecan pedestrian pelican pen pencil penguin penny people pepper performance permutation persimmon person pet petal
phone photo photograph piano pickle picnic picture pie piece pig pigeon pile pill pillow pilot pin pineapple pipe
pirate pistachio pitch pitcher pixel pizza place plane planet plank plant plate platter platypus play player plot plum
pocket pod poem point poker polygon polynomial pomegranate pond pony pool popsicle portfolio portion portrait
possibility post postcard poster pot potato potatoes premise present pretzel printer prisoner prize problem producer
profile program project prospect protractor province prune pumpkin punch pupil puppet puppy purse push-up pushpin
puzzle quadruple quail quarterback queen question quiche quilt quiz rabbit raccoon race racer racket radio radish raft
raisin rake ranger raspberry rat ray reader record rectangle region reindeer relative representation reptile request
resident residue respondent result rhino rib ribbon rice riddle ride rider ring river road robin robot rock rocket
roll rook room rooster rope rose rotation route row rug ruler runner sack sailboat sailor salad sale salmon salt
sample sand sandal sandwich sapling sausage saw scarecrow scarf scarves scenario schedule school scientist scoop
scooter scorpion scout screw seal seashell seat section sector seed seedling segment selection seller semester senior
sentence sequence sequin serving session set shape share shareholder shark sheep sheet shelf shell shelves ship shirt
shoe shop shot shovel shower shrimp sibling side silk singer siren sister skate skateboard skater skip skirt skittle
sled sleeve slice slide slipper slot smoothie snack snail snake snow snowball snowflake sock soda sofa soil soldier
solution son song soup souvenir speaker species spectator sphere spider spinach sponge spool spoon spot sprinkler
sprout squad square squash squirrel stack staff stage stair stamp staple star state station statue steak stem step
stick sticker stitch stocking stone stool stop store story strand straw strawberry street stride string stripe
stroller student stuffy subject sublist subscriber subsequence subset substance substring subway sugar suit suitcase
summand summit sunflower sunglasses supervisor surfboard surfer survivor swan sweater sweet swimmer switch syllable
symbol syrup system t-shirt table tablet taco tadpole tail tale tangerine tank tarantula tart task taxi tea teacher
team teammate tee-shirt teeth telescope tenant tent term test tetrahedron text textbook theater thing thread throne
thumbtack ticket tie tiger tile tiling time tin tire toad toddler token tomato tomatoes tool tooth toothbrush
toothpick topping torch toucan touchdown tour tourist towel tower town toy tractor trader trail train trapezoid trash
tray treat tree triangle tricycle trip triple trophy truck trumpet tuba tube tulip tuple turkey turn turnip turtle
tutor tv tweet twig type umbrella uncle unicorn unicycle uniform university urn utensil vacation valentine valley
value vampire van variable vase vector vegetable vehicle vertex vertices video village vine violin visit visitor
vitamin volunteer vote voter vowel waffle wagon waiter walk wall wallet walnut warehouse watch water watermelon wave
wax way web wedding weed weekend whale wheat wheel whisker whistle widget wig window wine wing winner wire witness
wizard wolf wolves woman women wood wool word worker worm wrapper wreath writer yacht yak yam yarn zebra zero zombie
zone zoo zucchini
"""

# Adjectives that may precede a noun without changing the count.
_ADJECTIVES = """
action acute additional all-star assorted bad baked baseball basketball big black blue broken bronze brown children's
chocolate circular colored complex composite congruent consecutive correct dangerous diet different digital distinct
dried elementary empty equilateral even extra female football free fresh frozen full gold good gray green grey ham
high homeless hot identical individual integer invited isosceles large lattice male many math metal mixed more new
nonempty nonzero obtuse odd old orange ordered other paper pen pink pizza plain plastic positive possible prime purple
random real rectangular red regular remaining right ripe rotten saltwater scalene school separate short silver similar
small soccer sold square stuffed such sugar-free tennis total toy triangular unique unordered used valid vanilla
voting white whole wild wooden yellow young
"""

NOUNS = frozenset(_NOUNS.split())
ADJECTIVES = frozenset(_ADJECTIVES.split())
