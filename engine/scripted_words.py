"""The words of the scripted engine's answers."""

_WORDS = """
a about above across act add after again against age air all almost alone along already also always among an
and animal another answer any appear are area arm around as ask at away back ball bank base be bear beauty
because become bed been before began begin behind being believe below best better between big bird black
blue boat body book both bottom box boy bread break bridge bright bring brother brought build burn busy but
buy by call came can car care carry case cat catch cause center certain chance change check child choose
circle city class clean clear climb close cloud coast cold color come common complete contain cook cool copy
corner correct cost could count country course cover create cross cry cut dance dark day deal dear decide
deep did differ direct distant do doctor does dog done door doubt down draw dream dress drink drive drop dry
during each early earth ease east eat edge effect egg eight either end engine enough enter equal even
evening ever every exact example experience explain eye face fact fair fall family famous far farm fast
father favor feel few field fight figure fill final find fine finger finish fire first fish fit five floor
flow flower fly follow food foot for force forest form forward found four free fresh friend from front fruit
full fun game garden gave general gentle get give glad glass go gold gone good got govern grand grass gray
great green ground group grow guess guide had hair half hand happen happy hard has hat have he head hear
heart heat heavy held help her here high hill him his history hold home hope horse hot hour house how human
hundred hunt hurry idea if imagine in inch include instead interest into iron is island it job join joy
judge just keep kept key kind king knew know lady lake land language large last late laugh law lay lead
learn least leave left length less let letter level lie life lift light like line list listen little live
long look lost lot loud love low machine made main make man many map mark market matter may me mean measure
meet mind minute miss modern moment money month moon more morning most mother motion mountain mouth move
much music must my name nation nature near need neighbor never new next night nine no noise north nose not
note nothing notice noun now number object observe ocean of off offer office often oil old on once one only
open or order other our out over own page paint pair paper part party pass past path pattern pay people
perhaps person phrase picture piece place plain plan plane planet plant play please point poor port position
possible power practice prepare present press pretty problem process produce promise proper prove pull push
put question quick quiet quite race radio rain raise ran reach read ready real reason receive record red
remember repeat reply rest result rich ride right ring rise river road rock roll room root rope rose round
row rule run safe said sail salt same sand save saw say school science sea season seat second see seem
select self send sense sentence serve set seven several shade shall shape share sharp she ship shop short
should shoulder show side sight sign silent silver similar simple since sing sister sit six size skill skin
sky sleep slow small smile snow so soft soil some song soon sound south space speak special speed spell
spend spoke spot spring square stand star start state station stay step stick still stone stood stop store
story straight strange stream street strong student study such sudden sugar suit summer sun supply support
sure surface surprise swim table tail take talk tall teach team tell ten test than thank that the their them
then there these they thick thin thing think third this those though thought thousand three through thus
tie time tiny to together told tone too tool top total touch toward town track trade train travel tree
triangle trip trouble true try turn twenty two type under unit until up upon us use usual valley value vary
very view village visit voice wait walk wall want war warm was wash watch water wave way we wear weather
week weight well went were west what wheel when where whether which while white who whole whose why wide
wild will win wind window winter wire wish with woman wonder wood word work world would write wrong wrote
year yellow yes yet you young your
"""
_OPENERS = (
    "The A We You It They This That There Some Most In On For When While If Because After Before Here So"
)

WORDS: tuple[str, ...] = tuple(_WORDS.split())
OPENERS: tuple[str, ...] = tuple(_OPENERS.split())
"""Words that begin a sentence."""
